"""The limits of codes through the whole service, on each store: who is refused, by which limit, and who is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from calls import quota_setting
from guaranteed import redis_settings, sqlite_settings
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


async def _send(service: Service, email: str = _ADA, **fields: Any) -> otp_pb2.SendCodeResponse:
    return await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email, **fields), timeout=_SECONDS)


async def _check(service: Service, code: str, email: str = _ADA, **fields: str) -> otp_pb2.ValidateCodeResponse:
    request = otp_pb2.ValidateCodeRequest(email=email, code=code, **fields)
    return await service.otp.ValidateCode(request, timeout=_SECONDS)


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
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _check(service, bob.otp_code, _BOB)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert quota_setting(refused.value) == "OTP_FAILURES_PER_CALLER_HOUR"
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
    """NO_LIVE_CODE and TOO_MANY_ATTEMPTS are told again for the same request id, although a code was sent since."""
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
