"""The use cases of codes, with the real mail service and a relay that is the test's own hand."""

import asyncio
import hashlib
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from email import message_from_bytes, policy
from typing import Any, TypeVar

import pytest

from cost import lines_run
from drafts import read_draft
from otpmail.address import parse_address
from otpmail.callers import ANONYMOUS, ANY_PURPOSE, Caller, Permissions, Profile
from otpmail.compose.catalog import Templates
from otpmail.delivery.job import Job
from otpmail.errors import ConnectionLost, InvalidArgument, LimitExceeded, MemoryFull, QueueFull, Unavailable
from otpmail.events import CodeChecked, Event, LimitReached, MailAccepted
from otpmail.mail.submission import Submission
from otpmail.model import HOUR, CheckResult, MailState, Priority, WaitFor
from otpmail.otp.codes import CodeBook
from otpmail.otp.policy import Policy
from otpmail.otp.request import CheckRequest, CodeRequest, SentCode, find_place
from otpmail.otp.service import OtpService
from otpmail.settings import OtpSettings
from otpmail.store.base import MailStore
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.records import Rule
from otpmail.store.retention import Retention
from otpmail.telemetry.logs import LogObserver
from rig import NOW, MailRig, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")

T = TypeVar("T")
EMAIL = "ada@example.org"
KEYS = "k1:c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="


class Challenges(MemoryChallengeStore):
    """A store that keeps the keys it was asked for, and updates nothing while `ready` is cleared."""

    def __init__(self, clock: Callable[[], float], rules: Policy) -> None:
        super().__init__(clock, rules)
        self.keys: set[bytes] = set()
        self.ready = asyncio.Event()
        self.ready.set()

    async def update(self, key: bytes, rule: Rule[T], mark: bytes = bytes(4)) -> T:
        """Wait, then update."""
        self.keys.add(key)
        await self.ready.wait()
        return await super().update(key, rule, mark)


TEMPLATES = Templates(None, default_locale="en")


class Rig(MailRig):
    """An OtpService with everything around it in the test's hands."""

    def __init__(self, *, store: MailStore | None = None, **settings: Any) -> None:
        super().__init__(queue_size=3, store=store)
        self.log = LogObserver()
        given = {"keys": KEYS, "return_code": True, **settings}
        options = OtpSettings(**given)
        self.challenges = Challenges(lambda: self.now, Policy.of(options))
        self.memory_budget.codes = self.challenges
        self.book = CodeBook.of(options)
        self.codes = OtpService(options, self.challenges, self.mails, TEMPLATES, self, codes=self.book)
        self._given = given
        self.jobs: list[Job] = []
        self.contents: list[bytes] = []

    def use_keys(self, keys: str) -> None:
        """Go on as the next process does that has these OTP_KEYS."""
        options = OtpSettings(**{**self._given, "keys": keys})
        self.codes = OtpService(options, self.challenges, self.mails, TEMPLATES, self, codes=CodeBook.of(options))

    def notify(self, event: Event) -> None:
        """Keep the event, and log it as the service does."""
        super().notify(event)
        self.log.notify(event)

    @property
    def mailed(self) -> int:
        """How many mails were accepted."""
        return len(self.seen(MailAccepted))

    def settle(self, job: Job | None = None, code: int = 250) -> Job:
        """Be worker and relay for that job, or the next one."""
        job = job or self.queue.get_nowait()
        self.contents.append(job.envelope.content)
        self.jobs.append(super().settle(job, code))
        return self.jobs[-1]

    async def send_and_leave(self, **request: Any) -> Job:
        """Ask for a code, and cancel the call while its mail is queued; returns the mail's job, which is cancelled."""
        call = asyncio.create_task(self.codes.send_code(call_of(), CodeRequest(email=EMAIL, **request)))
        await asyncio.sleep(0)
        job = self.queue.get_nowait()
        self.queue.put_nowait(job)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert job.mail.state is MailState.CANCELLED
        return job

    async def send(
        self, email: str = EMAIL, *, reply: int = 250, caller: str = ANONYMOUS.name, **more: Any
    ) -> SentCode:
        """Send a code and let the relay answer."""
        call = asyncio.create_task(self.codes.send_code(call_of(caller), CodeRequest(email=email, **more)))
        taking = asyncio.create_task(self.queue.get())
        await asyncio.wait((call, taking), return_when=asyncio.FIRST_COMPLETED)
        if taking.done():
            self.settle(taking.result(), reply)
        taking.cancel()
        sent = await call
        await self.codes.close()
        return sent

    async def check(self, code: str, email: str = EMAIL, *, caller: str = ANONYMOUS.name, **more: Any) -> CheckResult:
        """Check a code."""
        return (
            await self.codes.validate_code(call_of(caller), CheckRequest(email=email, code=code, **more))
        ).check.result


def _request_with(fields: Mapping[str, Any]) -> CheckRequest:
    return CheckRequest(**{"email": EMAIL, "code": "000000", **fields})


def _other(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}d}"


@pytest.fixture
async def rig() -> Rig:
    """The service with its defaults, OTP_RETURN_CODE on."""
    return Rig()


async def test_a_code_is_valid_once(rig: Rig) -> None:
    """A mailed code is valid once; after that no code is live."""
    sent = await rig.send()
    assert re.fullmatch(r"\d{6}", sent.code)
    assert await rig.check(sent.code) is CheckResult.VALID
    assert await rig.check(sent.code) is CheckResult.NO_LIVE_CODE


async def test_the_mail_of_a_code(rig: Rig) -> None:
    """The mail of a code is urgent, automatic, expires with the code, and has code and reference."""
    call = asyncio.create_task(rig.codes.send_code(call_of(), CodeRequest(email="Ada@Example.org", locale="de-AT")))
    await asyncio.sleep(0)
    job = rig.queue.get_nowait()
    message = message_from_bytes(job.envelope.content, policy=policy.default)
    rig.settle(job=job)
    sent = await call
    assert job.priority is Priority.URGENT
    assert job.envelope.recipients == ("Ada@Example.org",)
    assert job.deadline == pytest.approx(NOW + 600)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Subject"] == f"{sent.code} ist Ihr Anmeldecode"
    assert message["From"] == "Shop <shop@example.org>"
    body = message.get_body(("plain",))
    assert body is not None
    assert sent.code in body.get_content()
    assert sent.reference in body.get_content()


async def test_a_resend_is_the_same_code_and_its_expiry_stays(rig: Rig) -> None:
    """A resend has the same code, challenge and expiry, and the ttl that is left."""
    first = await rig.send()
    rig.now += 250
    again = await rig.send()
    assert again.code == first.code
    assert again.reference == first.reference
    assert again.issued.challenge == first.issued.challenge
    assert again.mail.id != first.mail.id
    assert rig.jobs[1].deadline - rig.now == pytest.approx(350)
    rig.now += 349.9
    assert await rig.check(_other(first.code)) is CheckResult.WRONG_CODE
    rig.now += 0.1
    assert await rig.check(first.code) is CheckResult.NO_LIVE_CODE
    assert (await rig.send()).code != first.code


async def test_a_resend_near_the_end_is_a_new_code(rig: Rig) -> None:
    """With less than half of its life left, a resend mails a new code with a whole life, and ends the older one."""
    first = await rig.send()
    assert await rig.check(_other(first.code)) is CheckResult.WRONG_CODE
    rig.now += 301
    again = await rig.send()
    assert again.issued.challenge.id != first.issued.challenge.id
    assert again.issued.expire_time == rig.now + 600
    assert b"valid for 10 minutes" in rig.contents[1]
    check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=first.code))).check
    assert (check.result, check.attempts_left) == (CheckResult.WRONG_CODE, 3)
    assert await rig.check(again.code) is CheckResult.VALID


async def test_a_resend_that_fails_leaves_the_older_code_valid(rig: Rig) -> None:
    """Where the mail with the new code is not sent, the code that the person has stays valid."""
    first = await rig.send()
    rig.now += 301
    call = asyncio.create_task(rig.codes.send_code(call_of(), CodeRequest(email=EMAIL)))
    await rig.queue.get()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await rig.codes.close()
    assert await rig.check(first.code) is CheckResult.VALID


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_resends_that_all_fail_leave_the_older_code_valid(rig: Rig, order: tuple[int, ...]) -> None:
    """Of several resends at once, none of which is sent, the last to end makes the older code valid again."""
    first = await rig.send(compat=True)
    rig.now += 61
    resends = await _resend(rig, len(order))
    for index in order:
        assert await rig.check(first.code) is CheckResult.WRONG_CODE
        await _cancel(rig, resends[index][0])
    assert await rig.check(first.code) is CheckResult.VALID


@pytest.mark.parametrize("sent_first", [False, True])
async def test_one_of_several_resends_ends_the_older_code(rig: Rig, sent_first: bool) -> None:  # noqa: FBT001
    """Of several resends at once, one that is sent is enough to end the older code, whatever becomes of the others."""
    first = await rig.send(compat=True)
    rig.now += 61
    (sent, job), (cancelled, _) = await _resend(rig, 2)
    if sent_first:
        rig.settle(job)
    await _cancel(rig, cancelled)
    if not sent_first:
        rig.settle(job)
    again = await sent
    assert await rig.check(first.code) is CheckResult.WRONG_CODE
    assert await rig.check(again.code) is CheckResult.VALID


async def _resend(rig: Rig, count: int) -> list[tuple[asyncio.Task[SentCode], Job]]:
    """Start so many resends by the original's contract, and take their mails from the queue."""
    request = CodeRequest(email=EMAIL, compat=True)
    return [(asyncio.create_task(rig.codes.send_code(call_of(), request)), await rig.queue.get()) for _ in range(count)]


async def _cancel(rig: Rig, call: asyncio.Task[SentCode]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await rig.codes.close()


async def test_a_resend_that_is_refused_leaves_the_older_code_valid(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail that can't be written, or a full queue, takes no code away."""
    first = await rig.send()
    rig.now += 301

    async def refuse(*_: object) -> Job:
        raise InvalidArgument("text", "is too long")

    with monkeypatch.context() as patch:
        patch.setattr(rig.mails, "accept_reserved", refuse)
        with pytest.raises(InvalidArgument, match="variables"):
            await rig.codes.send_code(call_of(), CodeRequest(email=EMAIL))
    for name in ("a", "b", "c"):
        await rig.codes.send_code(call_of(), CodeRequest(email=f"{name}@example.org", wait_for=WaitFor.QUEUE))
    with pytest.raises(QueueFull):
        await rig.codes.send_code(call_of(), CodeRequest(email=EMAIL))
    assert await rig.check(first.code) is CheckResult.VALID


@pytest.mark.parametrize(
    ("given", "lives"), [({}, (600, 120)), ({"lifespan_seconds": 300}, (300, 300)), ({"lifespan_seconds": 9}, (9, 9))]
)
async def test_a_life_by_the_contract(given: dict[str, Any], lives: tuple[float, float]) -> None:
    """A code lives ten minutes, two by the original's contract, and OTP_LIFESPAN_SECONDS in both where it is set."""
    rig = Rig(**given)
    own = await rig.send()
    compat = await rig.send("bob@example.org", compat=True)
    assert (own.issued.expire_time - NOW, compat.issued.expire_time - NOW) == lives


async def test_two_calls_of_the_original_within_a_minute_have_one_code(rig: Rig) -> None:
    """The original's clients get the live code again for a minute, and later one that lives two minutes again."""
    first = await rig.send(compat=True)
    rig.now += 60
    again = await rig.send(compat=True)
    assert again.code == first.code
    rig.now += 0.1
    later = await rig.send(compat=True)
    assert later.issued.challenge.id != first.issued.challenge.id
    assert later.issued.expire_time == rig.now + 120
    assert await rig.check(later.code) is CheckResult.VALID


async def test_exactly_n_attempts(rig: Rig) -> None:
    """The right code on try 5 passes."""
    sent = await rig.send()
    for left in (4, 3, 2, 1):
        check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=_other(sent.code)))).check
        assert (check.result, check.attempts_left) == (CheckResult.WRONG_CODE, left)
    assert await rig.check(sent.code) is CheckResult.VALID


async def test_not_one_attempt_more(rig: Rig) -> None:
    """The right code on try 6 does not pass, and the answer says when a new code may be asked for."""
    sent = await rig.send()
    for _ in range(5):
        assert await rig.check(_other(sent.code)) is CheckResult.WRONG_CODE
    check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=sent.code))).check
    assert check.result is CheckResult.TOO_MANY_ATTEMPTS
    assert check.retry_time == pytest.approx(sent.issued.next_send_time, abs=5)


async def test_a_resend_forgives_no_attempts(rig: Rig) -> None:
    """The attempts are the code's, however often it was mailed."""
    sent = await rig.send()
    for _ in range(4):
        await rig.check(_other(sent.code))
    rig.now += 31
    await rig.send()
    assert await rig.check(_other(sent.code)) is CheckResult.WRONG_CODE
    assert await rig.check(sent.code) is CheckResult.TOO_MANY_ATTEMPTS


async def test_a_new_code_does_not_reset_the_failures() -> None:
    """After ten failures in an hour, over two codes, nothing is mailed or compared until the hour is over."""
    rig = Rig(under_attack="lock")
    started = rig.now
    for _ in range(2):
        sent = await rig.send()
        for _ in range(5):
            assert await rig.check(_other(sent.code)) is CheckResult.WRONG_CODE
        rig.now += 31
    assert await rig.check(sent.code) is CheckResult.TOO_MANY_ATTEMPTS
    with pytest.raises(LimitExceeded) as caught:
        await rig.send()
    assert caught.value.retry_after == pytest.approx(started + HOUR - rig.now)
    assert rig.mailed == 2
    rig.now = started + HOUR
    assert await rig.check((await rig.send()).code) is CheckResult.VALID


async def test_a_success_does_not_clear_the_failures_of_strangers(rig: Rig) -> None:
    """Failures count over codes that were used; once they are spent the next code is a long one, and good."""
    for _ in range(2):
        sent = await rig.send()
        for _ in range(4):
            await rig.check(_other(sent.code))
        assert await rig.check(sent.code) is CheckResult.VALID
    sent = await rig.send()
    for result in (CheckResult.WRONG_CODE, CheckResult.WRONG_CODE, CheckResult.TOO_MANY_ATTEMPTS):
        assert await rig.check(_other(sent.code)) is result
    rig.now += 31
    sent = await rig.send()
    assert (len(sent.code), sent.code_length, sent.code.isdecimal()) == (12, 12, False)
    assert "-".join((sent.code[:4], sent.code[4:8], sent.code[8:])).encode() in rig.contents[-1]
    assert await rig.check("000000") is CheckResult.WRONG_CODE
    assert await rig.check(f"{sent.code[:6]}-{sent.code[6:]}".lower()) is CheckResult.VALID


async def test_a_device_is_known_by_its_token(rig: Rig) -> None:
    """Strangers at an address take nothing from a device that has shown a right code there."""
    sent = await rig.send()
    checked = await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=sent.code))
    token = checked.device_token
    for _ in range(2):
        sent = await rig.send()
        for _ in range(5):
            await rig.check(_other(sent.code))
        rig.now += 31
    assert len((await rig.send()).code) == 12
    sent = await rig.send(device_token=token)
    assert len(sent.code) == 6
    for caller, email in ((ANONYMOUS.name, "bob@example.org"), ("bank", EMAIL)):
        await rig.send(email, caller=caller)
        assert await rig.check(sent.code, email, caller=caller, device_token=token) is not CheckResult.VALID
    rig.now += 60
    request = CheckRequest(email=EMAIL, code=sent.code, device_token=token)
    again = await rig.codes.validate_code(call_of(), request)
    assert again.check.result is CheckResult.VALID
    assert again.device_token not in ("", token)


async def test_two_hundred_at_once_give_one_valid(rig: Rig) -> None:
    """The right code from 200 calls at the same moment is valid for exactly one of them."""
    sent = await rig.send()
    results = await asyncio.gather(*(rig.check(sent.code) for _ in range(200)))
    assert results.count(CheckResult.VALID) == 1
    assert set(results) <= {CheckResult.VALID, CheckResult.NO_LIVE_CODE, CheckResult.TOO_MANY_ATTEMPTS}


async def test_two_hundred_guesses_at_once_are_n_attempts(rig: Rig) -> None:
    """The service compares N guesses, however many callers guess at the same moment."""
    sent = await rig.send()
    results = await asyncio.gather(*(rig.check(_other(sent.code)) for _ in range(200)))
    assert results.count(CheckResult.WRONG_CODE) == 5
    assert results.count(CheckResult.TOO_MANY_ATTEMPTS) == 195


async def test_a_cancelled_check_gives_no_attempt_back(rig: Rig) -> None:
    """The store counts in the step that compares, so a cancelled check does not give the attempt back."""
    sent = await rig.send()
    holding = asyncio.Event()
    original = rig.challenges.update

    async def update(key: bytes, rule: Any) -> Any:
        said = await original(key, rule)
        await holding.wait()
        return said

    rig.challenges.update = update  # type: ignore[method-assign, assignment]
    calls = [asyncio.create_task(rig.check(_other(sent.code))) for _ in range(5)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    holding.set()
    assert await rig.check(sent.code) is CheckResult.TOO_MANY_ATTEMPTS


@pytest.mark.parametrize(
    "typed",
    [
        " {0} {1} ",
        "{0}-{1}",
        "{0}\u2013{1}",
        "{0}\u00a0{1}",
        "{0}\t{1}",
        "\ufeff{0}{1}\r\n",
        "\u202d{0}\u00ad{1}\u202c",
    ],
)
async def test_how_a_code_is_typed_does_not_matter(rig: Rig, typed: str) -> None:
    """A code is valid with spaces, dashes and invisible characters, as a person may type or paste it."""
    code = (await rig.send()).code
    assert await rig.check(typed.format(code[:3], code[3:])) is CheckResult.VALID


async def test_spaces_around_the_address_are_ignored(rig: Rig) -> None:
    """A pasted address with blanks around it has the record of the bare one, and the mail goes to the bare one."""
    sent = await rig.send("\u00a0 ada@example.org\r\n")
    assert rig.jobs[0].envelope.recipients == (EMAIL,)
    assert await rig.check(sent.code, "\tada@example.org\u200b") is CheckResult.VALID
    sent = await rig.send()
    await rig.codes.revoke_code(call_of(), email=f"{EMAIL}\n")
    assert await rig.check(sent.code) is CheckResult.NO_LIVE_CODE


async def test_the_address_may_be_spelt_otherwise(rig: Rig) -> None:
    """ASCII case and the domain's form don't matter."""
    sent = await rig.send("Ada@Bücher.example")
    assert await rig.check(sent.code, "aDA@xn--BCHER-kva.example") is CheckResult.VALID


@pytest.mark.parametrize(
    "elsewhere", [{"purpose": "payment"}, {"caller": "bank"}, {"email": "bob@example.org"}, {"challenge_id": "0" * 32}]
)
async def test_a_code_is_for_its_own_caller_purpose_and_address(rig: Rig, elsewhere: dict[str, str]) -> None:
    """A code for another caller, purpose or address is invalid, and stays valid where it belongs."""
    sent = await rig.send()
    assert await rig.check(sent.code, **elsewhere) is CheckResult.NO_LIVE_CODE
    bound = {"purpose": "login", "challenge_id": sent.issued.challenge.id.hex()}
    assert await rig.check(sent.code, **bound) is CheckResult.VALID


async def test_the_relays_refusal_voids_the_code(rig: Rig) -> None:
    """An address that the relay refuses for good gets no code that anybody could guess at."""
    sent = await rig.send(reply=550)
    assert sent.mail.state is MailState.FAILED
    assert await rig.check(sent.code) is CheckResult.NO_LIVE_CODE
    assert (await rig.send()).code != sent.code


async def test_a_code_that_may_have_arrived_is_not_voided(rig: Rig) -> None:
    """A code whose first copy may have arrived stays valid, with its wait, though the second copy is refused."""
    call = asyncio.create_task(rig.codes.send_code(call_of(), CodeRequest(email=EMAIL)))
    job = await rig.queue.get()
    assert rig.lifecycle.start(job)
    rig.lifecycle.connection_lost(job, ConnectionLost("gone", uncertain=True))
    rig.settle(code=550)
    sent = await call
    assert sent.mail.state is MailState.UNCERTAIN
    await rig.codes.close()
    with pytest.raises(LimitExceeded):
        await rig.send()
    assert await rig.check(sent.code) is CheckResult.VALID


@pytest.mark.parametrize("begun", [True, False])
async def test_a_stop_keeps_what_may_have_arrived(rig: Rig, begun: bool) -> None:  # noqa: FBT001
    """A mail abandoned by a stop keeps its wait if the relay has it, and gives it back otherwise."""
    call = asyncio.create_task(rig.codes.send_code(call_of(), CodeRequest(email=EMAIL)))
    job = await rig.queue.get()
    if begun:
        assert rig.lifecycle.start(job)
    rig.lifecycle.close()
    with pytest.raises(Unavailable):
        await call
    await rig.codes.close()
    (key,) = rig.challenges.keys
    record = await rig.challenges.update(key, lambda record: (record, record))
    assert record is not None
    [slot] = record.slots
    assert slot.challenge is not None
    assert (slot.next_send > rig.now) is begun


async def test_a_mail_that_never_left_is_not_waited_for(rig: Rig) -> None:
    """A code whose mail was cancelled with its call can be sent again at once."""
    job = await rig.send_and_leave()
    assert rig.queue.empty()
    await asyncio.sleep(0)
    await rig.codes.close()
    sent = await rig.send()
    assert job.mail.issued is not None
    assert sent.issued.challenge == job.mail.issued.challenge


@pytest.mark.parametrize("times", [1, 2])
async def test_a_call_cancelled_before_its_mail_is_accepted_gives_the_wait_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A call that is cancelled before its mail is accepted gives the wait back; a second cancel changes nothing."""
    holding = asyncio.Event()

    async def accept(*_: object) -> None:
        holding.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(rig.mails, "accept_reserved", accept)
        call = asyncio.create_task(rig.codes.send_code(call_of(), CodeRequest(email=EMAIL)))
        await holding.wait()
    rig.challenges.ready.clear()  # so that giving it back takes a while
    for _ in range(times):
        call.cancel()
        await asyncio.sleep(0)
    rig.challenges.ready.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    await rig.codes.close()
    assert rig.mailed == 0
    assert (await rig.send()).mail.state is MailState.RELAYED


async def test_an_unforeseen_failure_gives_the_wait_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is raised unchanged, and the next call is not too soon."""

    async def fail(*_: object) -> Job:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(rig.mails, "accept_reserved", fail)
        with pytest.raises(ZeroDivisionError):
            await rig.codes.send_code(call_of(), CodeRequest(email=EMAIL))
    assert (await rig.send()).mail.state is MailState.RELAYED


async def test_times_in_answers_are_on_the_wall_clock(rig: Rig) -> None:
    """Expiry, the next mail and the next attempt are in seconds since the epoch."""
    sent = await rig.send()
    assert (sent.issued.expire_time, sent.issued.next_send_time) == (NOW + 600, NOW + 30)
    for _ in range(5):
        await rig.check(_other(sent.code))
    check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=sent.code))).check
    assert check.retry_time == NOW + 30


async def test_the_time_of_a_new_code_knows_the_mailbox() -> None:
    """A check of an address with a tag says when its mailbox may have a mail again, which holds for no device."""
    rig = Rig(sends_per_hour=2)
    first = await rig.send("a+b@example.org")
    request = CheckRequest(email="a+b@example.org", code=first.code)
    device = (await rig.codes.validate_code(call_of(), request)).device_token
    sent = await rig.send("a+c@example.org")
    later = sent.issued.next_send_time
    for _ in range(5):
        await rig.check(_other(sent.code), "a+c@example.org")
    request = CheckRequest(email="a+c@example.org", code=sent.code)
    check = (await rig.codes.validate_code(call_of(), request)).check
    assert (check.result, check.retry_time, later) == (CheckResult.TOO_MANY_ATTEMPTS, NOW + 3600, NOW + 3600)
    own = await rig.send("a+b@example.org", device_token=device)
    assert own.issued.next_send_time == NOW + 30


@pytest.mark.parametrize("reply", [250, 550])
async def test_the_time_of_the_next_mail_is_one_when_it_is_sent(reply: int) -> None:
    """The last mail of an hour says when the next one may go, by the wait and the limit; a refused mail counts too."""
    rig = Rig(sends_per_hour=2)
    first = await rig.send()
    assert first.issued.next_send_time == NOW + 30
    rig.now += 30
    sent = await rig.send(reply=reply)
    assert sent.issued.next_send_time == NOW + 3600
    rig.now = NOW + 3599
    with pytest.raises(LimitExceeded, match="in an hour"):
        await rig.send()
    rig.now += 1
    assert (await rig.send()).mail.state is MailState.RELAYED


async def test_the_next_mail_need_not_wait_for_a_refused_one(rig: Rig) -> None:
    """After the relay has refused a code that is mailed again, the next mail with it may go at once, as answered."""
    first = await rig.send()
    rig.now += 30
    refused = await rig.send(reply=550)
    assert refused.issued.next_send_time == rig.now
    again = await rig.send()
    assert (again.mail.state, again.code) == (MailState.RELAYED, first.code)


async def test_mails_are_spaced(rig: Rig) -> None:
    """A second mail too soon is refused with the wait; callers of the original contract are not spaced."""
    sent = await rig.send()
    assert sent.issued.next_send_time == pytest.approx(sent.issued.expire_time - 570)
    rig.now += 10
    with pytest.raises(LimitExceeded) as caught:
        await rig.send()
    assert caught.value.retry_after == pytest.approx(20)
    assert (await rig.send(compat=True)).code == sent.code
    assert rig.mailed == 2


async def test_a_repeated_request_is_the_same_mail(rig: Rig) -> None:
    """The same request id gets the same mail, code and times, even too soon, and nothing more is mailed."""
    first = await rig.send(request_id="r1", fingerprint=b"f")
    again = await rig.send(request_id="r1", fingerprint=b"f")
    assert again == first
    assert again.code == first.code
    assert rig.mailed == 1


class DurableMails(MemoryMailStore):
    """A store that counts as durable."""

    durable = True


@pytest.mark.parametrize("wait_for", WaitFor)
async def test_a_repeated_request_is_the_same_mail_with_a_durable_store(wait_for: WaitFor) -> None:
    """The request id is found before the wait between two mails is asked for."""
    rig = Rig(store=DurableMails(lambda: NOW, retention=Retention(seconds=3600, count=100)))
    first = await rig.send(request_id="r1", fingerprint=b"f", wait_for=wait_for)
    again = await rig.send(request_id="r1", fingerprint=b"f", wait_for=wait_for)
    assert (again.mail.id, again.code) == (first.mail.id, first.code)
    assert rig.mailed == 1


async def test_a_request_repeated_at_the_same_moment_is_the_same_mail(rig: Rig) -> None:
    """Two calls with one request id at the same moment both get the outcome of the one mail."""
    request = CodeRequest(email=EMAIL, request_id="r1", fingerprint=b"f")
    calls = [asyncio.create_task(rig.codes.send_code(call_of(), request)) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    rig.settle()
    first, again = await asyncio.gather(*calls)
    assert first == again
    assert rig.mailed == 1


async def test_closing_does_not_wait_for_a_store_that_does_not_answer(rig: Rig) -> None:
    """A stop is bounded: a correction that the store has not made by then is given up."""
    sending = asyncio.create_task(rig.codes.send_code(call_of(), CodeRequest(email=EMAIL)))
    job = await rig.queue.get()
    rig.challenges.ready.clear()
    rig.settle(job, 451)
    rig.lifecycle.close()
    with pytest.raises(Unavailable):
        await sending
    async with asyncio.timeout(20):
        await rig.codes.close(seconds=0.01)
    rig.challenges.ready.set()
    await rig.codes.close()


async def test_a_request_id_with_other_content_is_refused(rig: Rig) -> None:
    """A request id with other content is InvalidArgument that names request_id, and nothing is mailed."""
    await rig.send(request_id="r1", fingerprint=b"f")
    with pytest.raises(InvalidArgument) as caught:
        await rig.send("bob@example.org", request_id="r1", fingerprint=b"g")
    assert caught.value.field == "request_id"
    other = Submission(
        draft=read_draft(to=("cy@example.org",)), request_id="r2", fingerprint=b"h", wait_for=WaitFor.QUEUE
    )
    await rig.mails.send(call_of(), other)
    with pytest.raises(InvalidArgument, match="request_id"):
        await rig.codes.send_code(
            call_of(), CodeRequest(email=EMAIL, request_id="r2", fingerprint=b"h", wait_for=WaitFor.QUEUE)
        )


async def test_no_limit_is_used_up_while_the_relay_is_down(rig: Rig) -> None:
    """While the relay is down a call gets Unavailable with the wait, and the next call is not too soon."""
    rig.relay.down = True
    with pytest.raises(Unavailable) as caught:
        await rig.send()
    assert caught.value.retry_after == 7.0
    assert len(rig.challenges) == 0
    rig.relay.down = False
    assert (await rig.send()).mail.state is MailState.RELAYED


async def test_a_caller_that_waits_for_the_queue_is_answered_at_once(rig: Rig) -> None:
    """WaitFor.QUEUE guarantees the mail, also while the relay is down."""
    rig.relay.down = True
    sent = await rig.codes.send_code(call_of(), CodeRequest(email=EMAIL, wait_for=WaitFor.QUEUE))
    assert sent.mail.state is MailState.QUEUED
    assert await rig.check(sent.code) is CheckResult.VALID


async def test_nothing_is_spent_while_the_queue_is_full(rig: Rig) -> None:
    """QueueFull leaves nothing accepted, and the next call is not too soon."""
    for name in ("a", "b", "c"):
        await rig.codes.send_code(call_of(), CodeRequest(email=f"{name}@example.org", wait_for=WaitFor.QUEUE))
    with pytest.raises(QueueFull):
        await rig.codes.send_code(call_of(), CodeRequest(email=EMAIL, wait_for=WaitFor.QUEUE))
    assert len(rig.challenges) == 3
    rig.settle()
    assert (await rig.codes.send_code(call_of(), CodeRequest(email=EMAIL, wait_for=WaitFor.QUEUE))).code


async def test_revoking(rig: Rig) -> None:
    """A revoked code is no code; revoking what is not live, or another challenge, changes nothing."""
    await rig.codes.revoke_code(call_of(), email=EMAIL)
    sent = await rig.send()
    await rig.codes.revoke_code(call_of(), email=EMAIL, challenge_id="0" * 32)
    await rig.codes.revoke_code(call_of(), email=EMAIL, purpose="other")
    await rig.codes.revoke_code(call_of("bank"), email=EMAIL)
    assert await rig.check(_other(sent.code)) is CheckResult.WRONG_CODE
    await rig.codes.revoke_code(call_of(), email=EMAIL, challenge_id=sent.issued.challenge.id.hex())
    assert await rig.check(sent.code) is CheckResult.NO_LIVE_CODE


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (CodeRequest(email="nobody"), "email"),
        (CodeRequest(email=""), "email"),
        (CodeRequest(email="Ada <ada@example.org>"), "email"),
        (CodeRequest(email=EMAIL, purpose="Login"), "purpose"),
        (CodeRequest(email=EMAIL, purpose="x" * 33), "purpose"),
        (CodeRequest(email=EMAIL, locale="e n"), "locale"),
        (CodeRequest(email=EMAIL, locale="../../etc"), "locale"),
        (CodeRequest(email=EMAIL, variables={f"v{number}": "" for number in range(33)}), "variables"),
        (CodeRequest(email=EMAIL, variables={"Shop": "x"}), "variables"),
        (CodeRequest(email=EMAIL, variables={"code": "000000"}), "variables"),
        (CodeRequest(email=EMAIL, variables={"shop": "x" * 1001}), "variables"),
        (CodeRequest(email=EMAIL, variables={"shop": "a\r\nb"}), "variables['shop']"),
        (CodeRequest(email=EMAIL, request_id="x" * 129), "request_id"),
        (CodeRequest(email=EMAIL, request_id="a\nb"), "request_id"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_mailed(rig: Rig, request_: CodeRequest, field: str) -> None:
    """A faulty call is InvalidArgument with the field's name, and leaves no record, no mail and no wait."""
    with pytest.raises(InvalidArgument) as caught:
        await rig.codes.send_code(call_of(), request_)
    assert caught.value.field == field
    assert rig.mailed == 0
    assert len(rig.challenges) == 0


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"code": "1" * 1001}, "code"),
        ({"purpose": "a b"}, "purpose"),
        ({"challenge_id": "xyz"}, "challenge_id"),
        ({"challenge_id": "A" * 32}, "challenge_id"),
    ],
)
async def test_a_check_that_can_not_be_made_counts_nothing(rig: Rig, wrong: dict[str, str], field: str) -> None:
    """A faulty check is InvalidArgument with the field's name, and uses up no attempt."""
    sent = await rig.send()
    for _ in range(6):
        with pytest.raises(InvalidArgument) as caught:
            await rig.codes.validate_code(call_of(), _request_with(wrong))
        assert caught.value.field == field
    check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=_other(sent.code)))).check
    assert check.attempts_left == 4


@pytest.mark.parametrize("typed", ["", "é", "12345", "1234567", "\u0661\u0662", "000000 OR 1=1", "\0", "1" * 1000])
async def test_a_text_that_can_not_be_a_code_costs_no_attempt(rig: Rig, typed: str) -> None:
    """Any text can be tried; one of another length or alphabet is a wrong code, and the code loses no attempt."""
    assert await rig.check(typed) is CheckResult.NO_LIVE_CODE
    sent = await rig.send()
    for _ in range(12):
        check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=typed))).check
        assert (check.result, check.attempts_left) == (CheckResult.WRONG_CODE, 5)
    assert await rig.check(sent.code) is CheckResult.VALID


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u0966", "\U0001d7ce"])
async def test_a_wrong_code_in_any_script_costs_an_attempt(rig: Rig, zero: str) -> None:
    """Digits of any script are a code, so a wrong one costs an attempt."""
    sent = await rig.send()
    typed = _other(sent.code).translate({ord("0") + digit: ord(zero) + digit for digit in range(10)})
    check = (await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=typed))).check
    assert (check.result, check.attempts_left) == (CheckResult.WRONG_CODE, 4)


async def test_the_code_is_returned_only_if_asked_for() -> None:
    """Without OTP_RETURN_CODE the answer holds no code."""
    rig = Rig(return_code=False)
    assert (await rig.send()).code == ""


async def test_the_store_holds_neither_address_nor_code(rig: Rig) -> None:
    """A dump of the store gives neither: the key is a digest, the code is nowhere."""
    sent = await rig.send()
    kept = [record for shard in rig.challenges._shards for record in shard.items()]
    assert len(kept) == 1
    assert kept[0][0] == hashlib.blake2b(f"anonymous\0{EMAIL}".encode(), digest_size=16).digest()
    assert sent.code not in repr(kept)
    assert parse_address(EMAIL, "email").key not in repr(kept)


async def test_what_is_observed_is_the_result(rig: Rig) -> None:
    """The service notifies the observer of one event a check, with the result's name."""
    sent = await rig.send()
    await rig.check(_other(sent.code))
    await rig.check(sent.code)
    await rig.check(sent.code)
    checked = [event.result for event in rig.events if isinstance(event, CodeChecked)]
    assert checked == ["WRONG_CODE", "VALID", "NO_LIVE_CODE"]


async def test_no_code_or_key_is_in_a_repr_or_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """No log line of any level, event or repr shows a code or a key."""
    rig = Rig(digits=10)  # so that no other number looks like it
    with caplog.at_level(logging.DEBUG):
        sent = await rig.send()
        await rig.check(_other(sent.code))
        await rig.check(sent.code)
        rig.now += 31
        refused = await rig.send(reply=550)
    shown = [repr(part) for part in (sent, rig.codes, rig.codes._codes, rig.codes._settings, rig.jobs, rig.events)]
    shown += [repr(replace(sent, code="")), repr(rig.mails), repr(rig.challenges), caplog.text]
    assert "mail-settled" in {getattr(record, "event", "") for record in caplog.records}
    for text in shown:
        assert sent.code not in text
        assert _other(sent.code) not in text
        assert refused.code not in text
        assert "c2VjcmV0" not in text
        assert "secret-secret" not in text


async def test_a_check_does_the_same_work_in_every_state(rig: Rig) -> None:
    """As many lines of code run for a wrong code whether one is live, expired, used, revoked, spent or never issued."""

    def lines(email: str) -> int:
        check = rig.codes.validate_code(call_of(), CheckRequest(email=email, code="000000"))

        def run_to_its_end() -> None:
            with pytest.raises(StopIteration):  # the memory store makes nobody wait
                check.send(None)

        return lines_run(run_to_its_end)

    sent = {name: await rig.send(f"{name}@example.org") for name in ("expired", "used", "spent")}
    rig.now = sent["expired"].issued.expire_time + 1
    sent |= {name: await rig.send(f"{name}@example.org") for name in ("used", "spent", "live", "revoked")}
    assert await rig.check(sent["used"].code, "used@example.org") is CheckResult.VALID
    for _ in range(5):
        await rig.check(_other(sent["spent"].code), "spent@example.org")
    await rig.codes.revoke_code(call_of(), email="revoked@example.org")
    counts = {name: lines(f"{name}@example.org") for name in ("none", "expired", "used", "spent", "live", "revoked")}
    # From Python 3.12 on the rounds of a comprehension are lines of its function.
    assert max(counts.values()) - min(counts.values()) <= (8 if sys.version_info < (3, 12) else 9), counts


async def test_half_of_a_limit_is_said_once_in_an_hour() -> None:
    """One event in an hour tells of a caller whose codes go around half of its limit."""
    rig = Rig(sends_per_caller_hour=4)
    told = []
    for number, wait in enumerate((0, 3000, 1200, 7800, 10)):
        rig.now += wait
        await rig.send(f"person{number}@example.org")
        told.append(len(rig.seen(LimitReached)))
    assert told == [0, 1, 1, 1, 2]


async def test_others_of_a_block_do_not_count_for_a_device() -> None:
    """A device with a token gets its codes, whatever strangers behind the same address have used up."""
    rig = Rig(sends_per_block_hour=2)
    sent = await rig.send(block="192.0.2.1")
    checked = await rig.codes.validate_code(call_of(), CheckRequest(email=EMAIL, code=sent.code))
    await rig.send("stranger@example.org", block="192.0.2.1")
    with pytest.raises(LimitExceeded, match="client_ip"):
        await rig.send("third@example.org", block="192.0.2.1")
    rig.now += 60
    again = await rig.send(block="192.0.2.1", device_token=checked.device_token)
    assert again.mail.state is MailState.RELAYED


async def test_a_live_code_whose_key_is_gone_gives_way_to_a_new_one(rig: Rig) -> None:
    """Where the key of the live code has left OTP_KEYS, SendCode mails a new code, which alone is good."""
    old = await rig.send(request_id="r1")
    rig.use_keys("k2:b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC1vdGhlci1zZWNyZXQ=")
    rig.now += 60
    new = await rig.send()
    assert new.issued.challenge.id != old.issued.challenge.id
    assert await rig.check(old.code) is CheckResult.WRONG_CODE
    assert await rig.check(new.code) is CheckResult.VALID
    again = await rig.send(request_id="r1")
    assert (again.mail.id, again.code) == (old.mail.id, "")


async def test_the_code_of_a_mail_is_derived_again(rig: Rig) -> None:
    """The code of an issued challenge is the one that was mailed; without its key it has no code."""
    sent = await rig.send()
    assert rig.book.code_of(sent.issued) == sent.code
    unknown = replace(sent.issued, challenge=replace(sent.issued.challenge, key_id="gone"))
    assert rig.book.code_of(unknown) == ""


async def test_a_flood_of_codes_of_one_caller(rig: Rig) -> None:
    """Where the codes of one caller take their half of the memory, those of others have their shares of it."""
    rig.memory_budget.for_records = 20_000
    many = await _flood(rig, "f")
    assert many > 10
    codes = [await _relayed(rig, "shop", f"s{one}@example.org") for one in range(many // 4)]
    await _flood(rig, "more")
    for one, sent in enumerate(codes):
        check = CheckRequest(email=f"s{one}@example.org", code=sent.code)
        assert (await rig.codes.validate_code(call_of("shop"), check)).check.result is CheckResult.VALID
    assert rig.challenges.octets <= 20_000 + 1000


async def _flood(rig: Rig, start: str) -> int:
    """Mail codes of a caller until there is no room, and return how many were."""
    for number in range(1000):
        try:
            await _relayed(rig, "flood", f"{start}{number}@example.org")
        except MemoryFull:
            return number
    pytest.fail("there is always room")


async def _relayed(rig: Rig, caller: str, email: str) -> SentCode:
    sending = asyncio.ensure_future(rig.codes.send_code(call_of(caller), CodeRequest(email=email)))
    try:
        while not (sending.done() or rig.queue.qsize()):  # noqa: ASYNC110  in the next turns of the loop
            await asyncio.sleep(0)
    finally:
        if rig.queue.qsize():
            rig.settle()
    return await sending


async def test_codes_of_new_addresses_without_memory(rig: Rig) -> None:
    """Where code records take their half of the memory a new address is refused; one that has a record goes on."""
    first = await rig.send("first@example.org")
    assert rig.challenges.octets > 0
    rig.memory_budget.for_records = 2 * rig.challenges.octets
    await rig.send("second@example.org")
    with pytest.raises(MemoryFull, match="codes of other addresses take their half of the memory that MEMORY_MAX_MB"):
        await rig.codes.send_code(call_of(), CodeRequest(email="third@example.org"))
    assert rig.memory_budget.unsettled == 0
    assert len(rig.challenges) == 2
    rig.now += 100
    assert (await rig.send("first@example.org")).code == first.code
    rig.now += 90_000
    await rig.challenges.sweep()
    assert rig.challenges.octets == 0
    await rig.send("third@example.org")


@pytest.mark.parametrize("may_be_there", [True, False])
async def test_forgetting_erases_earlier_records_of_purposes_with_a_profile(
    monkeypatch: pytest.MonkeyPatch,
    may_be_there: bool,  # noqa: FBT001
) -> None:
    """An earlier version had a record for each purpose: that of `login` is erased, and those with a profile are."""
    rig = Rig()
    profiles = {purpose: Profile() for purpose in ("login", "signup", "reset", ANY_PURPOSE)}
    call = replace(call_of("shop"), caller=Caller("shop", Permissions(profiles=profiles)))
    erased = list[tuple[bytes, bytes]]()

    async def forget(key: bytes, earlier: bytes = b"", mailbox: bytes = b"") -> None:
        del mailbox
        erased.append((key, earlier))

    monkeypatch.setattr(rig.challenges, "reads_earlier", may_be_there)
    monkeypatch.setattr(rig.challenges, "forget", forget)
    await rig.codes.addresses.forget(call, EMAIL)
    purposes = ("login", "reset", "signup") if may_be_there else ("login",)
    places = [find_place(call.caller, EMAIL, purpose, with_earlier=may_be_there) for purpose in purposes]
    assert erased == [(place.key, place.earlier) for place in places]
