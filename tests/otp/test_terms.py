"""The terms that profiles give to codes, and test addresses, on a fake clock."""

import asyncio
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from otp.test_service import Rig
from otpmail.address import parse_mailbox
from otpmail.callers import ANONYMOUS, Call, Caller, FixedCode, Permissions, Profile
from otpmail.compose.building import Look
from otpmail.compose.catalog import Templates
from otpmail.errors import LimitExceeded, PermissionDenied
from otpmail.events import FixedCodeUsed, MailAccepted, MailSettled
from otpmail.model import DAY, LETTERS, CheckResult, MailState
from otpmail.otp.request import CheckRequest, CodeRequest, SentCode
from otpmail.product import Product
from otpmail.store.address_codec import mark_of

pytestmark = pytest.mark.usefixtures("empty_directory")

_ADA, _REVIEW = "ada@example.org", "review@example.org"
_FIXED = "424242"
_ACME = Product(name="Acme", url="https://acme.example", color="#0a7c66")


class _Shop:
    """A caller with profiles, and the service that it calls."""

    def __init__(self, profiles: dict[str, Profile], *, product: Product | None = None, **settings: Any) -> None:
        self.rig = Rig(**settings)
        if product is not None:
            self.rig.codes.profiles.templates = Templates(None, default_locale="en", look=Look(product))
        self.change(profiles)

    def change(self, profiles: dict[str, Profile], name: str = "shop") -> None:
        """Give the caller these profiles in place of those before."""
        caller = Caller(name, Permissions(profiles=profiles))
        self.call = Call(caller, "unix:")
        self.rig.codes.profiles.renew(self.rig.codes.profiles.read([caller]))

    async def send(self, email: str = _ADA, **more: Any) -> SentCode:
        """Send a code, and let the relay accept its mail if there is one."""
        sending = asyncio.create_task(self.rig.codes.send_code(self.call, CodeRequest(email=email, **more)))
        for _ in range(5):
            await asyncio.sleep(0)
        if not sending.done():
            self.rig.settle()
        return await sending

    async def check(self, code: str, email: str = _ADA, **more: Any) -> CheckResult:
        """Check a code."""
        request = CheckRequest(email=email, code=code, **more)
        return (await self.rig.codes.validate_code(self.call, request)).check.result


async def test_a_live_code_outlives_its_profile() -> None:
    """A code keeps its form, its life and its attempts when the profile changes, or goes."""
    shop = _Shop({"login": Profile(length=LETTERS + 6, lifespan=300.0, attempts=2)})
    sent = await shop.send()
    assert (sent.code_length, len(sent.code)) == (6, 6)
    shop.change({"login": Profile(length=9, lifespan=60.0, attempts=5)})
    assert await shop.check("ABCDEF" if sent.code != "ABCDEF" else "ABCDEG") is CheckResult.WRONG_CODE
    shop.rig.now += 299.9
    assert await shop.check(sent.code) is CheckResult.VALID
    again = await shop.send()
    assert again.code_length == 9
    for _ in range(5):
        assert await shop.check(f"{(int(again.code) + 1) % 10**9:09d}") is CheckResult.WRONG_CODE
    assert await shop.check(again.code) is CheckResult.TOO_MANY_ATTEMPTS


async def test_the_wait_of_a_profile() -> None:
    """Two mails are as far apart as the profile says, longer or shorter than the service's own wait."""
    shop = _Shop({"login": Profile(resend=120.0), "device": Profile(resend=0.0)})
    sent = await shop.send()
    assert sent.issued.next_send_time == shop.rig.now + 120
    shop.rig.now += 119
    with pytest.raises(LimitExceeded) as caught:
        await shop.send()
    assert caught.value.retry_after == pytest.approx(1)
    shop.rig.now += 1
    await shop.send()
    await shop.send(purpose="device")
    await shop.send(purpose="device")


async def test_the_limits_of_a_profile_count_over_all_purposes() -> None:
    """A profile's limits are stricter ones on the same counts: no purpose has mails or guesses of its own."""
    strict = Profile(sends_per_hour=3, failures_per_hour=2, resend=0.0)
    shop = _Shop({"login": strict, "*": Profile(resend=0.0)}, under_attack="lock")
    for number in range(3):
        await shop.send(purpose=f"p{number}")
    with pytest.raises(LimitExceeded, match="mailed for this address in an hour"):
        await shop.send()
    for number in range(2):
        await shop.check("000000", purpose=f"p{number}")
    assert await shop.check("000000") is CheckResult.TOO_MANY_ATTEMPTS
    for number in range(3, 10):
        await shop.send(purpose=f"p{number}")
    with pytest.raises(LimitExceeded, match="mailed for this address in an hour"):
        await shop.send(purpose="p10")


@pytest.mark.parametrize("profiles", [None, {"*": Profile(attempts=10)}], ids=["without", "with"])
async def test_fifty_made_up_purposes_are_no_250_guesses(profiles: dict[str, Profile] | None) -> None:
    """Wrong codes count over all purposes together: 50 of them have ten in an hour, with profiles and without."""
    shop = _Shop(profiles or {}, resend_seconds=0, sends_per_hour=100, sends_per_day=100, under_attack="lock")
    if profiles is None:
        shop.call = Call(ANONYMOUS, "unix:")
    counted = 0
    for number in range(50):
        purpose = f"made-up-{number}"
        try:
            sent = await shop.send(purpose=purpose)
        except LimitExceeded:
            continue
        for step in range(1, 6):
            wrong = f"{(int(sent.code) + step) % 10**6:06d}"
            counted += await shop.check(wrong, purpose=purpose) is CheckResult.WRONG_CODE
    assert counted == 10


async def test_the_mail_of_a_profile(tmp_path: Path) -> None:
    """The mail has the From and the templates of the profile, also where the caller may not send so itself."""
    folder = tmp_path / "en"
    folder.mkdir()
    (folder / "subject.txt").write_text("Open the door: $code")
    (folder / "body.txt").write_text("$code")
    sender = parse_mailbox("Door <door@shop.example>", "from")
    shop = _Shop({"door": Profile(templates=tmp_path, sender=sender, relay="b:587"), "login": Profile()})
    for purpose in ("door", "login"):
        await shop.send(purpose=purpose)
    door, login = (message_from_bytes(content, policy=policy.default) for content in shop.rig.contents)
    assert (door["From"], str(door["Subject"]).partition(":")[0]) == ("Door <door@shop.example>", "Open the door")
    assert login["From"] == "Shop <shop@example.org>"
    assert [job.envelope.relay for job in shop.rig.jobs] == ["b:587", ""]


async def test_the_product_of_a_profile() -> None:
    """The mail speaks for the product of its profile; one with a name takes nothing from that of the settings."""
    named, colored = Product(name="Shop"), Product(color="#123456")
    shop = _Shop({"door": Profile(product=named), "login": Profile(product=colored), "reset": Profile()}, product=_ACME)
    for purpose in ("door", "login", "reset"):
        await shop.send(purpose=purpose)
    door, login, reset = (message_from_bytes(content, policy=policy.default) for content in shop.rig.contents)
    assert [str(mail["Subject"]).partition(" is your ")[2] for mail in (door, login, reset)] == [
        "Shop code",
        "Acme sign-in code",
        "Acme password reset code",
    ]
    html = [str(mail.get_body(("html",))) for mail in (door, login, reset)]
    assert ["https://acme.example" in part for part in html] == [False, True, True]
    assert [("#123456" in part, "#0a7c66" in part) for part in html] == [(False, False), (True, False), (False, True)]


async def test_a_purpose_without_a_profile() -> None:
    """The message names the purpose, and where a profile for it would be."""
    shop = _Shop({"device": Profile()})
    with pytest.raises(PermissionDenied, match="shop has no profile for 'login'; add one to `profiles` in"):
        await shop.send()


def _with_test_address(rig_now: float, days: float = 1.0) -> dict[str, Profile]:
    fixed = {_REVIEW: FixedCode(_FIXED, rig_now + days * DAY)}
    return {"login": Profile(test_addresses=fixed), "device": Profile()}


async def _reviewed() -> _Shop:
    shop = _Shop({})
    shop.change(_with_test_address(shop.rig.now))
    return shop


async def test_a_fixed_code_works_where_it_is_listed() -> None:
    """A test address gets no mail; its code is valid once for each SendCode, and each use is an event."""
    shop = await _reviewed()
    sent = await shop.send("Review@example.org", labels=(("a", "b"),))
    assert (sent.mail.state, sent.code_length, sent.code) == (MailState.RELAYED, 6, "")
    assert await shop.check(_FIXED, _REVIEW, session="other") is CheckResult.NO_LIVE_CODE
    assert await shop.check("000000", _REVIEW) is CheckResult.WRONG_CODE
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.VALID
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.NO_LIVE_CODE
    used = [event.result for event in shop.rig.seen(FixedCodeUsed)]
    assert used == ["SENT", "NO_LIVE_CODE", "WRONG_CODE", "VALID", "NO_LIVE_CODE"]
    assert not shop.rig.seen(MailAccepted)
    assert not shop.rig.seen(MailSettled)
    assert (await shop.rig.mails.get(shop.call.caller, sent.mail.id)) == sent.mail


async def test_the_record_of_a_test_address_is_in_the_share_of_its_caller() -> None:
    """The memory that it takes counts as the caller's, as that of any code."""
    shop = await _reviewed()
    await shop.send(_REVIEW)
    shares = shop.rig.challenges._shares
    assert shares[mark_of("shop")] == sum(shares.values()) == shop.rig.challenges.octets > 0


async def test_a_fixed_code_works_nowhere_else() -> None:
    """For another address, purpose or caller the fixed code is as wrong as any, and a mail is sent."""
    shop = await _reviewed()
    for email, purpose in ((_ADA, "login"), (_REVIEW, "device"), ("review+1@example.org", "login")):
        sent = await shop.send(email, purpose=purpose)
        assert sent.code != _FIXED
        assert await shop.check(_FIXED, email, purpose=purpose) is CheckResult.WRONG_CODE
    other = Caller("other")
    shop.call = Call(other, "unix:")
    assert (await shop.send(_REVIEW)).code != _FIXED
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.WRONG_CODE
    assert len(shop.rig.seen(MailAccepted)) == 4
    assert not shop.rig.seen(FixedCodeUsed)


async def test_a_fixed_code_ends_with_its_day() -> None:
    """From its end on the fixed code is worth nothing, also one that was sent a moment before, and mails are sent."""
    shop = await _reviewed()
    shop.rig.now += DAY - 60
    await shop.send(_REVIEW)
    shop.rig.now += 59
    assert await shop.check("000000", _REVIEW) is CheckResult.WRONG_CODE
    shop.rig.now += 1
    assert await shop.check(_FIXED, _REVIEW) is not CheckResult.VALID
    shop.rig.now += 600
    sent = await shop.send(_REVIEW)
    assert len(sent.code) == 6
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.WRONG_CODE
    assert await shop.check(sent.code, _REVIEW) is CheckResult.VALID
    assert len(shop.rig.seen(MailAccepted)) == 1


async def test_an_address_that_becomes_a_test_address_or_is_one_no_longer() -> None:
    """A code that is live for the other kind of address is not sent again: SendCode begins a new one."""
    shop = _Shop({"login": Profile()})
    mailed = await shop.send(_REVIEW)
    shop.change(_with_test_address(shop.rig.now))
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.WRONG_CODE
    shop.rig.now += 30
    fixed = await shop.send(_REVIEW)
    assert fixed.issued.challenge.id != mailed.issued.challenge.id
    shop.rig.now += 30
    shop.change({"login": Profile()})
    again = await shop.send(_REVIEW)
    assert len(shop.rig.seen(MailAccepted)) == 2
    assert await shop.check(again.code, _REVIEW) is CheckResult.VALID


async def test_a_call_that_began_before_the_file_changed() -> None:
    """A call of a caller whose profiles went meanwhile has the terms of the settings."""
    shop = _Shop({"device": Profile(length=8)})
    shop.rig.codes.profiles.renew({})
    assert (await shop.send()).code_length == 6


async def test_a_fixed_code_that_is_no_longer_listed() -> None:
    """A file without the address ends its live code; one with another code has that in force at once."""
    shop = await _reviewed()
    await shop.send(_REVIEW)
    shop.change({"login": Profile(test_addresses={_REVIEW: FixedCode("535353", shop.rig.now + DAY)})})
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.WRONG_CODE
    assert await shop.check("535353", _REVIEW) is CheckResult.VALID
    shop.rig.now += 30
    await shop.send(_REVIEW)
    shop.change({"login": Profile()})
    assert await shop.check("535353", _REVIEW) is CheckResult.WRONG_CODE


async def test_a_fixed_code_is_guessed_no_better() -> None:
    """Ten wrong codes at a test address lock it for an hour, right code included; others do not notice."""
    shop = await _reviewed()
    for _ in range(2):
        await shop.send(_REVIEW)
        for step in range(5):
            assert await shop.check(f"00000{step}", _REVIEW) is CheckResult.WRONG_CODE
        shop.rig.now += 30
    assert await shop.check(_FIXED, _REVIEW) is CheckResult.TOO_MANY_ATTEMPTS
    with pytest.raises(LimitExceeded):
        await shop.send(_REVIEW)
    await shop.send(_ADA)


async def test_a_test_address_counts_for_nothing_else() -> None:
    """Codes of test addresses, and guesses there, count for no limit of their caller or service."""
    shop = _Shop({}, sends_per_caller_hour=1, sends_per_service_hour=1, failures_per_caller_hour=1)
    shop.change(_with_test_address(shop.rig.now))
    for session in ("a", "b", "c"):
        await shop.send(_REVIEW, session=session)
        for _ in range(2):
            assert await shop.check("000000", _REVIEW, session=session) is CheckResult.WRONG_CODE
    await shop.send(_ADA)
    assert await shop.check("000000", _ADA) is CheckResult.WRONG_CODE


@pytest.mark.parametrize(
    ("profile", "tries", "setting", "seconds"),
    [
        (Profile(lifespan=600.0), 5, "OTP_ATTEMPTS", 30.0),
        (Profile(lifespan=600.0), 6, "OTP_FAILURES_PER_HOUR", 3600.0),
        (Profile(attempts=2), 2, "profiles.login.attempts", 30.0),
        (Profile(failures_per_hour=3), 3, "profiles.login.failures_per_hour", 3600.0),
        (Profile(failures_per_day=4), 4, "profiles.login.failures_per_day", 86_400.0),
    ],
)
async def test_the_original_contract_is_told_which_limit_refuses_a_check(
    profile: Profile, tries: int, setting: str, seconds: float
) -> None:
    """A check without attempts left is a refusal there, with the setting or the key that limits it, and until when."""
    shop = _Shop({"login": profile}, failures_per_hour=6)
    for number in range(tries):
        if number % 5 == 0:
            sent = await shop.send(compat=True)
            wrong = "000000" if sent.code != "000000" else "111111"
        assert await shop.check(wrong, compat=True) is CheckResult.WRONG_CODE
    checked = await shop.rig.codes.validate_code(shop.call, CheckRequest(email=_ADA, code=sent.code, compat=True))
    error = checked.refusal
    assert error is not None
    assert (error.subject, error.setting, error.retry_after) == ("address", setting, seconds)
