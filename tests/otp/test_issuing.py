"""Guaranteed codes on a durable store: the record of a code and its mail are there together, or neither is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from otpmail.compose.templates import Templates
from otpmail.delivery.intake import Intake
from otpmail.errors import InvalidArgument, LimitExceeded, Unavailable
from otpmail.model import CheckResult, MailState, WaitFor
from otpmail.otp.codes import CodeBook
from otpmail.otp.policy import Policy
from otpmail.otp.request import CodeRequest, SentCode
from otpmail.otp.service import OtpService
from otpmail.settings import OtpSettings
from otpmail.store.base import Entry
from otpmail.store.clock import StoreClock
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database
from rig import MailRig, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")

_KEYS = "k1:c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="
_REQUEST = CodeRequest(email="ada@example.org", wait_for=WaitFor.QUEUE)
_NAMED = replace(_REQUEST, request_id="r1", fingerprint=b"f")
_ROOM = 1 << 40


class Service:
    """An OtpService on a store in a file."""

    def __init__(self, path: Path, now: Callable[[], float], free: Callable[[Path], int] = lambda _: _ROOM) -> None:
        settings = OtpSettings(keys=SecretStr(_KEYS), return_code=True)
        book, policy = CodeBook.of(settings), Policy.of(settings)
        clock = StoreClock(wall=now, elapsed=now)
        self.store = SqliteStore(
            Database(path, free=free),
            settings.derivation_keys,
            clock,
            remember_seconds=3600,
            remember_count=100,
            rules=policy,
        )
        self._settings, self._book = settings, book

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Run it."""
        await self.store.open()
        self.rig = MailRig(store=self.store.mails)
        self.codes = OtpService(
            self._settings,
            self.store.challenges,
            self.rig.mails,
            Templates.load(self._settings),
            self.rig,
            codes=self._book,
            issue=self.store.issue,
        )
        try:
            yield self
        finally:
            await self.codes.close()
            self.rig.lifecycle.close()
            await self.store.close()

    async def send(self, request: CodeRequest = _REQUEST) -> SentCode:
        """Ask for a code."""
        return await self.codes.send_code(call_of(), request)

    async def check(self, code: str) -> CheckResult:
        """Check a code."""
        return (await self.codes.validate_code(call_of(), email="ada@example.org", code=code)).result

    async def arrived(self) -> list[Entry]:
        """Return the mails that an earlier process left."""
        entries, _ = await self.store.mails.read([left.mail_id for left in self.store.mails.left()])
        return entries


class Clock:
    """A clock that stands until the test moves it."""

    time = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """A clock that the test moves."""
    return Clock()


async def test_both_are_there_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    """The next process has the mail and the record of a code that was accepted: the code is valid, once."""
    async with Service(tmp_path / "store.db", clock).running() as service:
        sent = await service.send()
        assert sent.mail.state is MailState.QUEUED
        assert service.rig.queue.qsize() == 1
    async with Service(tmp_path / "store.db", clock).running() as service:
        [entry] = await service.arrived()
        assert entry.mail.id == sent.mail.id
        assert sent.code.encode() in entry.envelope.content
        with pytest.raises(LimitExceeded):
            await service.send()
        assert await service.check(sent.code) is CheckResult.VALID
        assert await service.check(sent.code) is CheckResult.NO_LIVE_CODE


async def test_the_live_code_is_mailed_again(tmp_path: Path, clock: Clock) -> None:
    """A further mail, once it may be sent, has the same code, and the attempts that were made stay counted."""
    async with Service(tmp_path / "store.db", clock).running() as service:
        first = await service.send()
        wrong = "000000" if first.code != "000000" else "111111"
        assert await service.check(wrong) is CheckResult.WRONG_CODE
        clock.time += 31
        second = await service.send()
        assert (second.code, second.reference) == (first.code, first.reference)
        assert second.mail.id != first.mail.id
        assert second.issued.next_send_time == clock.time + 30
        contents = [service.rig.queue.get_nowait().envelope.content for _ in range(2)]
        assert all(first.code.encode() in content for content in contents)
        check = await service.codes.validate_code(call_of(), email="ada@example.org", code=wrong)
        assert check.attempts_left == 3


async def test_a_code_near_its_end_is_replaced(tmp_path: Path, clock: Clock) -> None:
    """A further mail near the end of a code has a new code, and the old one is live again if that is not sent."""
    async with Service(tmp_path / "store.db", clock).running() as service:
        first = await service.send()
        service.rig.settle()
        clock.time += 400
        second = await service.send()
        assert second.code != first.code
        assert await service.check(first.code) is CheckResult.WRONG_CODE
        service.rig.settle(code=451)
        await service.rig.mails.cancel(call_of().caller, second.mail.id)
        await service.codes.close()
        assert await service.check(first.code) is CheckResult.VALID


async def test_a_refused_code_leaves_no_mail(tmp_path: Path, clock: Clock) -> None:
    """A code that is asked for too soon, and one whose variables are wrong, leave neither a mail nor a record."""
    async with Service(tmp_path / "store.db", clock).running() as service:
        long = replace(_REQUEST, email="bob@example.org", variables={"name": "\udc80"})
        with pytest.raises(InvalidArgument):
            await service.send(long)
        await service.send(replace(_REQUEST, email="bob@example.org"))
        await service.send()
        with pytest.raises(LimitExceeded):
            await service.send()
        assert service.rig.queue.qsize() == 2
    async with Service(tmp_path / "store.db", clock).running() as service:
        assert len(await service.arrived()) == 2


async def test_a_full_disk_leaves_neither(tmp_path: Path, clock: Clock) -> None:
    """While the disk is full a code is refused, and with room it is sent at once: no wait for the next mail is left."""
    free = [_ROOM]
    async with Service(tmp_path / "store.db", clock, lambda _: free[0]).running() as service:
        free[0] = 0
        with pytest.raises(Unavailable):
            await service.send()
        assert service.rig.queue.qsize() == 0
        free[0] = _ROOM
        async with asyncio.timeout(20):
            while True:
                try:
                    sent = await service.send()
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        assert await service.check(sent.code) is CheckResult.VALID


async def test_a_cancelled_call_leaves_neither(tmp_path: Path, clock: Clock) -> None:
    """A call that is cancelled while the store writes leaves no mail to send, and the next code may be sent at once."""
    async with Service(tmp_path / "store.db", clock).running() as service:
        call = asyncio.create_task(service.send(_NAMED))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await service.codes.close()
        assert service.rig.queue.qsize() == 0
        sent = await service.send(_NAMED)
        assert sent.mail.state is MailState.QUEUED
    async with Service(tmp_path / "store.db", clock).running() as service:
        assert [entry.mail.id for entry in await service.arrived()] == [sent.mail.id]


async def test_a_repeated_request_has_the_first_code(tmp_path: Path, clock: Clock) -> None:
    """A request that is repeated too soon for a new mail has the first answer, at once and in the next process."""
    async with Service(tmp_path / "store.db", clock).running() as service:
        first, again = await asyncio.gather(service.send(_NAMED), service.send(_NAMED))
        assert first == again == await service.send(_NAMED)
        with pytest.raises(InvalidArgument, match=r"^request_id: was used before for another request$"):
            await service.send(replace(_NAMED, fingerprint=b"g"))
        assert service.rig.queue.qsize() == 1
    async with Service(tmp_path / "store.db", clock).running() as service:
        intake = Intake(service.store.mails, service.rig.lifecycle, code_of=service.codes.code_of)
        for entry in await service.arrived():
            intake.take_up(entry)
        again = await service.send(_NAMED)
        assert (again.mail.id, again.code, again.issued) == (first.mail.id, first.code, first.issued)
        with pytest.raises(InvalidArgument, match=r"^request_id: was used before for another request$"):
            await service.send(replace(_NAMED, fingerprint=b"g"))
