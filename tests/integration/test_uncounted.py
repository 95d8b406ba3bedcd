"""Mails of codes that never left count for no limit, through the whole service on each store."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from calls import quota_setting
from guaranteed import redis_settings, sqlite_settings
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from relay import Faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay import Relay
    from service import Service

_SECONDS = 60.0  # generous: the machine may be busy
_TAGGED, _MAILBOX = "ada+tag@example.org", "ada@example.org"
_LATER = Faults(final_reply="451 4.3.0 later")
_SETTINGS = {"OTP_RETURN_CODE": True, "OTP_SENDS_PER_BLOCK_HOUR": 2, "WORKERS": 1}


@pytest.fixture(params=["memory", "sqlite", "redis"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of each store in turn."""
    if request.param == "sqlite":
        return _SETTINGS | sqlite_settings(tmp_path / "store.db")
    return _SETTINGS | (redis_settings(request.getfixturevalue("redis")) if request.param == "redis" else {})


@pytest.fixture(params=["sqlite", "redis"])
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of each store that outlives its process."""
    if request.param == "sqlite":
        return _SETTINGS | sqlite_settings(tmp_path / "store.db")
    return _SETTINGS | redis_settings(request.getfixturevalue("redis"), lease=1)


def _asked(email: str = _TAGGED, **fields: Any) -> otp_pb2.SendCodeRequest:
    return otp_pb2.SendCodeRequest(email=email, client_ip="192.0.2.1", **fields)


async def _spent(service: Service, email: str) -> int:
    request = address_pb2.GetAddressRequest(email=email)
    budgets = (await service.address_service.GetAddress(request, timeout=_SECONDS)).budgets
    return max([budget.spent for budget in budgets], default=0)


async def _expect_counted(service: Service, *, mails: int) -> None:
    """Wait until so many mails count for the address and its mailbox, and check that as many do for the block."""
    async with asyncio.timeout(_SECONDS):
        while (await _spent(service, _TAGGED), await _spent(service, _MAILBOX)) != (mails, mails):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    queued = mail_pb2.WAIT_FOR_QUEUE
    for number in range(2 - mails):
        await service.otp.SendCode(_asked(f"bob{number}@example.org", wait_for=queued), timeout=_SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.otp.SendCode(_asked("eve@example.org", wait_for=queued), timeout=_SECONDS)
    assert quota_setting(refused.value) == "OTP_SENDS_PER_BLOCK_HOUR"


async def _cancel(service: Service, mail: mail_pb2.Mail) -> None:
    """Cancel a mail that the relay defers, between two of its attempts."""
    for count in itertools.count(1):
        await service.wait_for_log("mail-deferred", count=count, mail=mail.id, timeout=_SECONDS)
        request = mail_pb2.CancelMailRequest(id=mail.id)
        status = await service.mail.CancelMail(request, timeout=_SECONDS).code()
        if status is grpc.StatusCode.OK:
            return
        assert status is grpc.StatusCode.FAILED_PRECONDITION  # the mail is with the relay again


async def _check(service: Service, code: str) -> int:
    check = otp_pb2.ValidateCodeRequest(email=_TAGGED, code=code)
    return (await service.otp.ValidateCode(check, timeout=_SECONDS)).result


async def test_a_cancelled_call(serve: Callable[..., Awaitable[Service]], relay: Relay, stored: dict[str, Any]) -> None:
    """A call that its client cancels while the relay defers its mail leaves nothing counted."""
    relay.faults = _LATER
    service = await serve(**stored)
    call = service.otp.SendCode(_asked(), timeout=_SECONDS)
    async with asyncio.timeout(_SECONDS):
        while await _spent(service, _TAGGED) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    call.cancel()
    await _expect_counted(service, mails=0)


async def test_a_mail_of_a_killed_process(
    serve: Callable[..., Awaitable[Service]], relay: Relay, durable: dict[str, Any]
) -> None:
    """A guaranteed mail that a killed process has left, and the next one does not send, leaves nothing counted."""
    relay.faults = _LATER
    first = await serve(**durable)
    sent = await first.otp.SendCode(_asked(wait_for=mail_pb2.WAIT_FOR_QUEUE), timeout=_SECONDS)
    await first.kill()
    second = await serve(**durable)
    await second.wait_for_log("mails-taken-up")
    assert (await _spent(second, _TAGGED), await _spent(second, _MAILBOX)) == (1, 1)
    await _cancel(second, sent.mail)
    await _expect_counted(second, mails=0)


async def test_a_mail_of_a_replaced_code(
    serve: Callable[..., Awaitable[Service]], relay: Relay, stored: dict[str, Any]
) -> None:
    """A mail that is cancelled after its code was replaced leaves nothing counted; the newer code stays good."""
    relay.faults = _LATER
    service = await serve(**stored, OTP_ATTEMPTS=1, OTP_RESEND_SECONDS=0)
    first = await service.otp.SendCode(_asked(wait_for=mail_pb2.WAIT_FOR_QUEUE), timeout=_SECONDS)
    wrong = f"{(int(first.otp_code) + 1) % 10**6:06d}"
    assert await _check(service, wrong) == otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE  # and its one attempt is used
    newer = await service.otp.SendCode(_asked(wait_for=mail_pb2.WAIT_FOR_QUEUE), timeout=_SECONDS)
    assert newer.challenge_id != first.challenge_id
    await _cancel(service, first.mail)
    await _expect_counted(service, mails=1)
    assert await _check(service, newer.otp_code) == otp_pb2.ValidateCodeResponse.RESULT_VALID
