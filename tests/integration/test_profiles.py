"""Profiles of CALLERS_FILE through the whole service: the terms of codes by caller and purpose."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from calls import parsed, retry_seconds, text_of
from commands import otpmail
from guaranteed import redis_settings, sqlite_settings
from integration.callers import DENIED, RELAYED, as_caller, status_of, table, write
from otpmail.v1 import mail_pb2, otp_pb2
from redis_server import RedisServer
from relay import Faults, Relay
from service import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


_SECONDS = 60.0  # generous: the machine may be busy
_ADA = "ada@example.org"
_VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
_NONE = otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
_WRONG = otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the callers are, of whom there are none yet."""
    return tmp_path / "callers.toml"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """Start a server."""
    with RedisServer() as server:
        yield server


def _profile(purpose: str, *lines: str) -> str:
    return "\n".join((f'[callers.shop.profiles."{purpose}"]', *lines, ""))


async def _send(service: Service, **fields: str) -> otp_pb2.SendCodeResponse:
    request = otp_pb2.SendCodeRequest(**{"email": _ADA, **fields})  # type: ignore[arg-type]
    return await service.otp.SendCode(request, metadata=as_caller("shop"), timeout=_SECONDS)


async def _validate(service: Service, code: str, **fields: str) -> otp_pb2.ValidateCodeResponse:
    request = otp_pb2.ValidateCodeRequest(**{"email": _ADA, "code": code, **fields})
    return await service.otp.ValidateCode(request, metadata=as_caller("shop"), timeout=_SECONDS)


async def test_a_profile_sets_the_form_of_a_code(
    serve: Callable[..., Awaitable[Service]], file: Path, relay: Relay
) -> None:
    """A caller's codes have the digits, letters, life and From of the purpose's profile, and are valid once."""
    terms = ("digits = 8", 'lifespan = "2m"', "attempts = 2", 'from = "Shop <codes@shop.example>"')
    write(file, table("shop") + _profile("login", *terms) + _profile("device", "letters = 6") + table("other"))
    service = await serve(CALLERS_FILE=file, OTP_RETURN_CODE=True)
    sent = await _send(service)
    assert (sent.code_length, sent.code_is_numeric) == (8, True)
    assert len(sent.otp_code) == 8
    assert parsed(relay.mails[0].content)["From"] == "Shop <codes@shop.example>"
    assert sent.otp_code in text_of(relay.mails[0].content)
    assert relay.mails[0].sender == "codes@shop.example"
    wrong = await _validate(service, f"{(int(sent.otp_code) + 1) % 10**8:08d}")
    assert (wrong.result, wrong.attempts_left) == (_WRONG, 1)
    assert (await _validate(service, sent.otp_code)).result == _VALID
    letters = await _send(service, purpose="device")
    assert (letters.code_length, letters.code_is_numeric) == (6, False)
    assert (await _validate(service, letters.otp_code.lower(), purpose="device")).result == _VALID
    plain = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=_ADA), metadata=as_caller("other"))
    assert plain.code_length == 6


async def test_a_mail_speaks_for_the_product_of_its_profile(
    serve: Callable[..., Awaitable[Service]], file: Path, relay: Relay
) -> None:
    """A mail has the product of its profile and nothing of the service's, which other purposes and callers have."""
    shop = {
        "product_name": "Shop",
        "product_url": "https://shop.example",
        "product_logo_url": "https://shop.example/logo.png",
        "product_color": "#123456",
        "support_address": "help@shop.example",
    }
    acme = {
        "PRODUCT_NAME": "Acme",
        "PRODUCT_URL": "https://acme.example",
        "PRODUCT_LOGO_URL": "https://acme.example/logo.png",
        "PRODUCT_COLOR": "#0a7c66",
        "SUPPORT_ADDRESS": "help@acme.example",
    }
    lines = (f'{key} = "{value}"' for key, value in shop.items())
    write(file, table("shop") + _profile("login", *lines) + _profile("device", "digits = 8") + table("other"))
    service = await serve(CALLERS_FILE=file, **acme)
    await _send(service)
    await _send(service, purpose="device")
    await service.otp.SendCode(otp_pb2.SendCodeRequest(email=_ADA), metadata=as_caller("other"), timeout=_SECONDS)
    of_shop, *others = (_shown(mail.content) for mail in relay.mails)
    assert [value for value in shop.values() if value not in of_shop] == []
    assert [value for value in acme.values() if value in of_shop] == []
    for shown in others:
        assert [value for value in acme.values() if value not in shown] == []
        assert [value for value in shop.values() if value in shown] == []


def _shown(content: bytes) -> str:
    """Return the subject and the HTML of a mail."""
    message = parsed(content)
    body = message.get_body(("html",))
    assert body is not None
    return f"{message['Subject']}\n{body.get_content()}"


async def test_a_profile_that_changes(serve: Callable[..., Awaitable[Service]], file: Path, relay: Relay) -> None:
    """A change is in force within a second; codes that are live keep their form; a faulty file changes nothing."""
    write(file, table("shop") + _profile("login", "digits = 8", "resend = 0"))
    service = await serve(CALLERS_FILE=file, OTP_RETURN_CODE=True)
    before = await _send(service)
    write(file, table("shop") + _profile("login", "letters = 8", 'resend = "1m"'))
    await service.wait_for_log("reloaded", changed=["CALLERS_FILE"], timeout=_SECONDS)
    again = await _send(service, session="other")
    assert (again.code_length, again.code_is_numeric) == (8, False)
    write(file, table("shop") + _profile("login", "digits = 5"))
    line = await service.wait_for_log("reload-failed", setting="CALLERS_FILE", timeout=_SECONDS)
    where = "line 4: [callers.shop.profiles.login] digits must be a whole number from 6 to 10"
    assert f"{file}: {where}" in str(line["message"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service, session="other")
    assert 30 < retry_seconds(caught.value) <= 60
    assert (await _validate(service, before.otp_code)).result == _VALID
    assert (await _validate(service, again.otp_code, session="other")).result == _VALID
    assert len(relay.mails) == 2


async def test_purposes_without_a_profile(serve: Callable[..., Awaitable[Service]], file: Path) -> None:
    """A caller with profiles has the purposes that they name, and any other one only by the profile "*"."""
    write(file, table("shop") + _profile("device", "digits = 7"))
    service = await serve(CALLERS_FILE=file, OTP_RETURN_CODE=True)
    assert await status_of(_send(service)) is DENIED
    assert await status_of(_validate(service, "123456")) is DENIED
    assert (await _send(service, purpose="device")).code_length == 7
    write(file, table("shop") + _profile("*", "digits = 9"))
    await service.wait_for_log("reloaded", changed=["CALLERS_FILE"], timeout=_SECONDS)
    assert (await _send(service)).code_length == 9


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
async def test_a_test_address(
    serve: Callable[..., Awaitable[Service]], file: Path, relay: Relay, request: pytest.FixtureRequest, store: str
) -> None:
    """A test address has its fixed code and no mail; each use has a line in the log, and no line has the code."""
    day = (datetime.now(UTC) + timedelta(days=30)).date()
    write(
        file,
        table("shop")
        + _profile(
            "login", "digits = 10", f'test_addresses."Review@Example.org" = {{ code = "9753186420", until = {day} }}'
        )
        + table("other"),
    )
    settings: dict[str, object] = {}
    if store == "sqlite":
        settings |= sqlite_settings(file.with_name("store.db"))
    if store == "redis":
        settings |= redis_settings(request.getfixturevalue("redis_server"))
    service = await serve(CALLERS_FILE=file, OTP_RETURN_CODE=True, LOG_LEVEL="debug", **settings)
    sent = await _send(service, email="review@example.org", request_id="r-1")
    assert sent.mail.state == RELAYED
    assert sent.mail.recipients[0].reply == "a test address of this caller: no mail is sent"
    assert await _send(service, email="review@example.org", request_id="r-1") == sent
    found = await service.mail.GetMail(mail_pb2.GetMailRequest(id=sent.mail.id), metadata=as_caller("shop"))
    assert found == sent.mail
    assert (await _validate(service, "9753186421", email="review@example.org")).result == _WRONG
    right = await _validate(service, "97531 86420", email="review@example.org")
    assert right.result == _VALID
    assert right.device_token
    assert (await _validate(service, "9753186420", email="review@example.org")).result == _NONE
    other = otp_pb2.SendCodeRequest(email="review@example.org")
    await service.otp.SendCode(other, metadata=as_caller("other"), timeout=_SECONDS)
    assert len(relay.mails) == 1
    await _send(service)
    assert (await _validate(service, "9753186420")).result in {_WRONG, _NONE}
    assert len(relay.mails) == 2
    for result in ("SENT", "WRONG_CODE", "VALID", "NO_LIVE_CODE"):
        line = await service.wait_for_log("test-address-used", result=result, timeout=_SECONDS)
        assert (line["caller"], line["purpose"], line["to"]) == ("shop", "login", "r***@example.org")
    shown = [line for line in service.output if "9753186420" in line or "97531 86420" in line]
    assert not shown, shown


async def test_settings_beyond_the_ceilings_of_profiles(serve: Callable[..., Awaitable[Service]]) -> None:
    """Settings that no profile may have work as they did, and the start warns of each, and of those without effect."""
    service = await serve(OTP_DIGITS=4, OTP_LIFESPAN_SECONDS=3600, OTP_ATTEMPTS=20, OTP_SENDS_PER_DAY=9)
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=_ADA), timeout=_SECONDS)
    assert sent.code_length == 4
    for setting in ("OTP_DIGITS", "OTP_LIFESPAN_SECONDS", "OTP_ATTEMPTS"):
        line = await service.wait_for_log("beyond-ceiling", setting=setting, timeout=_SECONDS)
        assert line["level"] == "warning"
    line = await service.wait_for_log("limit-without-effect", setting="OTP_SENDS_PER_HOUR", timeout=_SECONDS)
    assert line["level"] == "warning"


async def test_the_commands_know_profiles(file: Path) -> None:
    """`caller check` prints each test address with its end, warns near it, and shows no code; `list` has the terms."""
    soon, later = ((datetime.now(UTC) + timedelta(days=days)).date() for days in (3, 60))
    entries = (
        f'test_addresses."a@example.org" = {{ code = "424242", until = {soon} }}',
        f'test_addresses."b@example.org" = {{ code = "424242", until = {later} }}',
    )
    write(file, table("shop") + _profile("login", 'lifespan = "5m"', *entries))
    checked = await otpmail("caller", "check", "--file", str(file), here=file.parent)
    assert checked.code == 0
    start = "of shop, purpose login: good until"
    assert f"test address a@example.org {start} {soon} (UTC); it ends in" in checked.err
    assert f"test address b@example.org {start} {later} (UTC)\n" in checked.out
    assert "good: 1 caller" in checked.out
    listed = await otpmail("caller", "list", "--file", str(file), here=file.parent)
    assert "  profile login: life 300 s, 2 test addresses" in listed.out
    assert "424242" not in checked.out + checked.err + listed.out + listed.err
    write(file, table("shop") + _profile("login", "sends_per_hour = 20"))
    refused = await otpmail("caller", "check", "--file", str(file), here=file.parent)
    assert refused.code == 2
    assert "line 4: [callers.shop.profiles.login] sends_per_hour must be a whole number from 1 to 10" in refused.err
    raised = await otpmail("caller", "check", "--file", str(file), here=file.parent, OTP_SENDS_PER_HOUR="20")
    assert raised.code == 0


@pytest.mark.parametrize(
    ("mode", "tested", "words"),
    [
        (0o600, True, []),
        (0o640, True, []),
        (0o644, True, ["may read the codes of its test addresses; chmod o-r"]),
        (0o644, False, []),
        (0o622, False, ["may change it, and add callers; chmod o-w"]),
        (0o666, True, ["may change it, and add callers; chmod o-w", "may read the codes of its test addresses"]),
    ],
)
async def test_the_command_looks_at_the_mode(file: Path, mode: int, words: list[str], *, tested: bool) -> None:
    """`caller check` warns where every account may change the file, or read the codes of test addresses."""
    entry = f'test_addresses."a@example.org" = {{ code = "424242", until = {datetime.now(UTC).date()} }}'
    write(file, f"{table('shop')}[anonymous]\n{_profile('login', entry) if tested else ''}")
    await asyncio.to_thread(file.chmod, mode)
    checked = await otpmail("caller", "check", "--file", str(file), here=file.parent)
    assert (checked.code, checked.out.endswith("good: 1 caller and anonymous\n")) == (0, True)
    assert checked.err.count("every account of this machine") == len(words)
    assert all(word in " ".join(checked.err.split()) for word in words)


async def test_the_command_knows_the_relays_of_the_settings(file: Path) -> None:
    """A relay that the settings do not have is named with its line, from the environment and from `.env`.

    Without relays in the settings the command says that it has not checked that one.
    """
    write(file, table("shop") + _profile("login", 'relay = "two.example.org:25"'))
    check = partial(otpmail, "caller", "check", "--file", str(file), here=file.parent)
    one, two = ("smtp+plain://one.example.org:25", "smtp+plain://two.example.org:25")
    unknown = await check()
    assert unknown.code == 0
    assert "not checked: two.example.org:25, since no relays are set here" in unknown.err
    line = "[callers.shop.profiles.login] relay is no relay of this service"
    given: tuple[dict[str, Any], ...] = ({"EMAIL_RELAYS": one}, {"EMAIL_HOST": "one.example.org", "EMAIL_PORT": "25"})
    for settings in given:
        refused = await otpmail("caller", "check", "--file", str(file), here=file.parent, **settings)
        assert refused.code == 2
        assert f"callers.toml: line 4: {line}; there are one.example.org:25" in refused.err
    (file.parent / ".env").write_text(f"EMAIL_RELAYS={one}\n")
    assert (await check()).code == 2
    (file.parent / ".env").write_text(f"EMAIL_RELAYS={one},{two}\n")
    known = await check()
    assert (known.code, known.err) == (0, "")
    wrong = await check(EMAIL_RELAYS="smtp+plain://one.example.org:none")
    assert "not checked: two.example.org:25" in wrong.err
    listed = await otpmail("caller", "list", "--file", str(file), here=file.parent)
    assert "  profile login: relay two.example.org:25" in listed.out


async def test_the_relay_of_a_profile(file: Path) -> None:
    """Codes go over the relay of their profile alone, also while another one comes first; other mails go as ever."""
    async with Relay(Faults(auth=())) as first, Relay(Faults(auth=())) as second:
        write(file, table("shop") + _profile("login", f'relay = "127.0.0.1:{second.port}"') + _profile("device"))
        urls = " ".join(f"smtp+plain://127.0.0.1:{relay.port}" for relay in (first, second))
        async with Service(CALLERS_FILE=file, EMAIL_RELAYS=urls, WORKERS=2, OTP_RESEND_SECONDS=0) as service:
            await service.wait_until_serving()
            for session in ("a", "b"):
                assert (await _send(service, session=session)).mail.state == RELAYED
            assert (await _send(service, purpose="device")).mail.state == RELAYED
            assert (len(first.mails), len(second.mails)) == (1, 2)
            await second.close()
            waiting = asyncio.create_task(_send(service, session="c"))
            deferred = await service.wait_for_log("mail-deferred", timeout=_SECONDS)
            assert f"this mail is for the relay 127.0.0.1:{second.port} alone" in str(deferred["message"])
            await second.start()
            assert (await waiting).mail.state == RELAYED
            assert (len(first.mails), len(second.mails)) == (1, 3)
