"""The rates of a caller in a running service: what counts is what goes out, whenever calls are cancelled."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from guaranteed import redis_settings, sqlite_settings
from integration.callers import as_caller, hello, table, write
from otpmail.v1 import mail_pb2
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay

_MOST = 150
_QUEUE = mail_pb2.WAIT_FOR_QUEUE


async def _send(service: Service, patience: float | None = None) -> bool:
    """Send a mail, and give up after a while; returns whether it was refused for the rate."""
    call = service.mail.SendMail(hello(wait_for=_QUEUE), metadata=as_caller("shop"))
    try:
        async with asyncio.timeout(patience):
            await call
    except TimeoutError:
        call.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return False


async def _stream(service: Service, patience: float) -> None:
    """Send ten mails in a stream, and give it up after a while."""
    mails = [hello(request_id=f"{random.random()}", wait_for=_QUEUE) for _ in range(10)]
    call = service.mail.SendMails(iter([mail_pb2.SendMailsRequest(mails=mails)]), metadata=as_caller("shop"))
    try:
        async with asyncio.timeout(patience):
            async for _ in call:
                pass
    except TimeoutError:
        call.cancel()


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
async def test_cancelled_calls_count_if_their_mails_go_out(
    relay: Relay, certificates: Certificates, tmp_path: Path, request: pytest.FixtureRequest, store: str
) -> None:
    """Of calls and streams that are cancelled at any moment those mails count that go out, and no others."""
    write(tmp_path / "callers.toml", table("shop", f"mails_per_hour = {_MOST}"))
    settings: dict[str, Any] = relay_settings(relay, certificates, tmp_path / "token")
    settings |= {"CALLERS_FILE": tmp_path / "callers.toml"}
    if store == "sqlite":
        settings |= sqlite_settings(tmp_path / "store.db")
    elif store == "redis":
        settings |= redis_settings(request.getfixturevalue("redis"))
    rng = random.Random(7)
    async with Service(**settings) as service:
        await service.wait_until_serving()
        began = time.monotonic()
        await asyncio.gather(*[_send(service) for _ in range(8)])
        longest = 1.3 * (time.monotonic() - began)  # about as many calls end by themselves as are cancelled
        for _ in range(10):
            await asyncio.gather(*[_send(service, rng.uniform(0.0, longest)) for _ in range(8)])
            await _stream(service, rng.uniform(0.0, 2 * longest))
        async with asyncio.timeout(30):
            while len(relay.mails) < _MOST:
                await _send(service)
        assert await _send(service)
        await relay.wait_for_mails(_MOST)
        assert await service.stop() == 0
    assert len(relay.mails) == _MOST
