"""The limits of codes through the whole service, on each store: which limit refuses whom, and who is not refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from calls import quota_setting
from guaranteed import redis_settings, sqlite_settings
from integration.callers import as_caller, hello, table, write
from otpmail.v1 import otp_pb2
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from service import Service

_SECONDS = 60.0  # generous: the machine may be busy
_ADA, _BOB = "ada@example.org", "bob@example.org"
_VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
_WRONG = otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE
_NONE = otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
_SPENT = otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """Start a server."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of each store in turn."""
    settings = {"OTP_RETURN_CODE": True, "OTP_RESEND_SECONDS": 0}
    if request.param == "sqlite":
        return settings | sqlite_settings(tmp_path / "store.db")
    return settings | (redis_settings(request.getfixturevalue("redis_server")) if request.param == "redis" else {})


async def _send(service: Service, email: str = _ADA, *, caller: str = "", **fields: Any) -> otp_pb2.SendCodeResponse:
    request = otp_pb2.SendCodeRequest(email=email, **fields)
    return await service.otp.SendCode(request, timeout=_SECONDS, metadata=as_caller(caller) if caller else None)


async def _check(
    service: Service, code: str, email: str = _ADA, *, caller: str = "", **fields: str
) -> otp_pb2.ValidateCodeResponse:
    request = otp_pb2.ValidateCodeRequest(email=email, code=code, **fields)
    return await service.otp.ValidateCode(request, timeout=_SECONDS, metadata=as_caller(caller) if caller else None)


async def _refused(call: Awaitable[object]) -> tuple[str, str]:
    """Return the message of a refusal by a limit, and the limit that it names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value.details() or "", quota_setting(caught.value)


def _other(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}d}"


async def test_a_long_code_is_not_refused_for_guesses_elsewhere(
    serve: Callable[..., Awaitable[Service]], stored: dict[str, Any]
) -> None:
    """Once a caller's wrong codes of an hour are used up, short codes are refused, and a live long one is good."""
    service = await serve(**stored, OTP_FAILURES_PER_CALLER_HOUR=2, OTP_FAILURES_PER_HOUR=2)
    bob, ada = await _send(service, _BOB), await _send(service)
    for _ in range(2):
        assert (await _check(service, _other(ada.otp_code))).result == _WRONG
    assert (await _refused(_check(service, bob.otp_code, _BOB)))[1] == "OTP_FAILURES_PER_CALLER_HOUR"
    long = await _send(service)
    assert (long.code_length, long.code_is_numeric) == (12, False)
    for _ in range(6):
        assert (await _check(service, "ABCD-EFGH-JKLM")).result == _WRONG
    assert (await _check(service, long.otp_code)).result == _VALID


async def test_a_device_is_not_refused_for_guesses_of_strangers(
    serve: Callable[..., Awaitable[Service]], stored: dict[str, Any]
) -> None:
    """Once a caller's wrong codes of an hour are used up, a device with its token signs in as before."""
    service = await serve(**stored, OTP_FAILURES_PER_CALLER_HOUR=1)
    token = (await _check(service, (await _send(service)).otp_code)).device_token
    bob = await _send(service, _BOB)
    assert (await _check(service, _other(bob.otp_code), _BOB)).result == _WRONG
    mine = await _send(service, device_token=token)
    assert (await _check(service, _other(mine.otp_code), device_token=token)).result == _WRONG
    assert (await _check(service, mine.otp_code, device_token=token)).result == _VALID
    with pytest.raises(grpc.aio.AioRpcError, match="too many wrong codes"):
        await _check(service, bob.otp_code, _BOB)


async def test_a_repeated_check_is_no_new_attempt(
    serve: Callable[..., Awaitable[Service]], stored: dict[str, Any]
) -> None:
    """A repeated request id gets NO_LIVE_CODE and TOO_MANY_ATTEMPTS again, although a code was sent since."""
    service = await serve(**stored, OTP_ATTEMPTS=1)
    used = (await _send(service)).otp_code
    assert (await _check(service, used)).result == _VALID
    assert (await _check(service, used, request_id="r-1")).result == _NONE
    live = await _send(service)
    assert (await _check(service, used, request_id="r-1")).result == _NONE
    assert (await _check(service, _other(live.otp_code))).result == _WRONG
    spent = await _check(service, live.otp_code, request_id="r-2")
    assert spent.result == _SPENT
    again = await _send(service)
    assert await _check(service, live.otp_code, request_id="r-2") == spent
    assert (await _check(service, again.otp_code)).result == _VALID


async def test_the_wrong_codes_of_one_caller(
    serve: Callable[..., Awaitable[Service]], stored: dict[str, Any], tmp_path: Path
) -> None:
    """`guesses_per_hour` is for one caller, is read again when it changes, and is named in refusals."""
    file = tmp_path / "callers.toml"
    write(file, table("shop", "guesses_per_hour = 1") + table("bank"))
    service = await serve(**stored, CALLERS_FILE=file)
    for caller in ("shop", "bank"):
        sent = await _send(service, caller=caller)
        assert (await _check(service, _other(sent.otp_code), caller=caller)).result == _WRONG
        again = _check(service, _other(sent.otp_code), caller=caller)
        if caller == "bank":
            assert (await again).result == _WRONG
            continue
        said, key = await _refused(again)
        assert "(guesses_per_hour in [callers.shop] of CALLERS_FILE)" in said
        assert key == "guesses_per_hour"
    await service.wait_for_log("limit-near", limit="guesses", caller="shop", timeout=_SECONDS)
    write(file, table("shop", "guesses_per_hour = 2") + table("bank"))
    await service.wait_for_log("reloaded", changed=["CALLERS_FILE"], timeout=_SECONDS)
    bob = await _send(service, _BOB, caller="shop")
    assert (await _check(service, _other(bob.otp_code), _BOB, caller="shop")).result == _WRONG
    assert (await _refused(_check(service, bob.otp_code, _BOB, caller="shop")))[1] == "guesses_per_hour"


async def test_guesses_in_shadow(serve: Callable[..., Awaitable[Service]], stored: dict[str, Any]) -> None:
    """With `guesses` in shadow no check is refused, and the log says which would have been."""
    service = await serve(**stored, OTP_FAILURES_PER_CALLER_HOUR=1, LIMITS_MODE="guesses=shadow", HTTP_PORT=0)
    sent = await _send(service)
    for _ in range(2):
        assert (await _check(service, _other(sent.otp_code))).result == _WRONG
    await service.wait_for_log("limit-in-shadow", limit="guesses", percent=100, timeout=_SECONDS)
    assert (await _check(service, sent.otp_code)).result == _VALID


async def test_a_refusal_names_what_sets_its_limit(
    serve: Callable[..., Awaitable[Service]], stored: dict[str, Any], tmp_path: Path
) -> None:
    """A limit of a profile or of a caller's table is named by its key there, and another by its setting."""
    file = tmp_path / "callers.toml"
    profiles = (
        '[callers.shop.profiles."*"]\nsends_per_hour = 1\nresend = 0\n'
        "[callers.shop.profiles.slow]\nresend = 60\n"
        "[callers.shop.profiles.free]\ndigits = 7\n"
    )
    write(file, table("shop") + profiles + table("bank", "codes_per_hour = 1", "mails_per_hour = 1"))
    service = await serve(**stored, CALLERS_FILE=file, OTP_SENDS_PER_HOUR=3)
    await _send(service, caller="shop", purpose="a")
    place = '[callers.shop.profiles."*"] of CALLERS_FILE'
    said = f"too many codes were mailed for this address in an hour (sends_per_hour in {place})"
    assert await _refused(_send(service, caller="shop", purpose="b")) == (said, "profiles.*.sends_per_hour")
    await _send(service, caller="shop", purpose="slow")
    said = "a code was mailed to this address just now (resend in [callers.shop.profiles.slow] of CALLERS_FILE)"
    assert await _refused(_send(service, caller="shop", purpose="slow")) == (said, "profiles.slow.resend")
    await _send(service, caller="shop", purpose="free")
    said = "too many codes were mailed for this address in an hour"
    assert await _refused(_send(service, caller="shop", purpose="free")) == (said, "OTP_SENDS_PER_HOUR")
    await _send(service, caller="bank")
    said, key = await _refused(_send(service, _BOB, caller="bank"))
    assert (said.partition(" (")[2], key) == ("codes_per_hour in [callers.bank] of CALLERS_FILE)", "codes_per_hour")
    await service.mail.SendMail(hello(), metadata=as_caller("bank"), timeout=_SECONDS)
    said, key = await _refused(service.mail.SendMail(hello(), metadata=as_caller("bank"), timeout=_SECONDS))
    assert (said.partition(" (")[2], key) == ("mails_per_hour in [callers.bank] of CALLERS_FILE)", "mails_per_hour")
