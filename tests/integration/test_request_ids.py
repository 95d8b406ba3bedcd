"""A repeated request_id sends nothing twice: SendMail, SendMails and SendCode, on memory and SQLite, over restarts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from calls import bad_field
from guaranteed import message_ids, request, sqlite_settings
from otpmail.v1 import mail_pb2, otp_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay import Certificates, Relay

    Send = Callable[..., Awaitable[mail_pb2.Mail]]

RELAY, QUEUE = mail_pb2.WAIT_FOR_RELAY, mail_pb2.WAIT_FOR_QUEUE
_CONFLICT = "request_id: was used before for another request"


async def _send_mail(service: Service, wait_for: int, name: str = "ada", request_id: str = "r1") -> mail_pb2.Mail:
    asked = request(name, request_id=request_id, wait_for=wait_for)
    return (await service.mail.SendMail(asked)).mail


async def _send_mails(service: Service, wait_for: int, name: str = "ada", request_id: str = "r1") -> mail_pb2.Mail:
    asked = request(name, request_id=request_id, wait_for=wait_for)
    batch = mail_pb2.SendMailsRequest(mails=[asked])
    [result] = [one async for answer in service.mail.SendMails(iter([batch])) for one in answer.results]
    if result.code:
        raise _RefusedError(result.code, result.message)
    return result.mail


async def _send_code(service: Service, wait_for: int, name: str = "ada", request_id: str = "r1") -> mail_pb2.Mail:
    asked = otp_pb2.SendCodeRequest(email=f"{name}@example.org", request_id=request_id)
    asked.wait_for = QUEUE if wait_for == QUEUE else RELAY
    return (await service.otp.SendCode(asked)).mail


class _RefusedError(Exception):
    """The result of a mail in a stream that was refused."""


_WAYS = [(send, wait_for) for send in (_send_mail, _send_mails, _send_code) for wait_for in (RELAY, QUEUE)]
_NAMES = [f"{send.__name__[1:]}-{'queue' if wait_for == QUEUE else 'relay'}" for send, wait_for in _WAYS]


@pytest.fixture(params=["memory", "sqlite"])
def state(request: pytest.FixtureRequest, relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service on each store in turn."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    return settings | (sqlite_settings(tmp_path / "store.db") if request.param == "sqlite" else {})


def _is_durable(state: dict[str, Any]) -> bool:
    return "STORE_URL" in state


async def _refused(call: Awaitable[mail_pb2.Mail]) -> str:
    """Return why a call was refused, for its request id."""
    with pytest.raises((grpc.aio.AioRpcError, _RefusedError)) as caught:
        await call
    if isinstance(caught.value, grpc.aio.AioRpcError):
        assert (caught.value.code(), bad_field(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "request_id")
        return caught.value.details() or ""
    code, words = caught.value.args
    assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    return str(words)


@pytest.mark.parametrize(("send", "wait_for"), _WAYS, ids=_NAMES)
async def test_a_repeated_request(state: dict[str, Any], relay: Relay, send: Send, wait_for: int) -> None:
    """A request id has one mail: at once from many calls, again later, and on a durable store after stops and kills."""
    async with Service(**state) as service:
        await service.wait_until_serving()
        first = await asyncio.gather(*(send(service, wait_for) for _ in range(10)))
        [mail_id] = {mail.id for mail in first}
        await relay.wait_for_mails(1)
        assert (await send(service, wait_for)).id == mail_id
        other = _send_mail if send is _send_code else _send_code
        assert await _refused(other(service, wait_for)) == _CONFLICT
        assert await _refused(send(service, wait_for, "eve")) == _CONFLICT
        assert await service.stop() == 0
    for end in ("stop", "kill"):
        async with Service(**state) as service:
            await service.wait_until_serving()
            again = await send(service, wait_for)
            if not _is_durable(state):
                assert again.id != mail_id
                await relay.wait_for_mails(2)
                break
            assert (again.id, again.request_id) == (mail_id, "r1")
            assert await _refused(send(service, wait_for, "eve")) == _CONFLICT
            await (service.stop() if end == "stop" else service.kill())
    assert len(relay.mails) == (1 if _is_durable(state) else 2)


async def test_how_many_request_ids_are_kept_is_a_setting(state: dict[str, Any], relay: Relay) -> None:
    """With MAIL_REQUEST_COUNT=40 300 later requests push the first one out, and the last ones are known."""
    async with Service(**state, MAIL_REQUEST_COUNT="40", MAIL_REMEMBER_COUNT="40") as service:
        await service.wait_until_serving()
        ids = {name: (await _send_mail(service, RELAY, request_id=name)).id for name in map(str, range(140))}
        assert (await _send_mail(service, RELAY, request_id="139")).id == ids["139"]
        for name in map(str, range(140, 300)):  # a file forgets with every so many settled mails
            await _send_mail(service, RELAY, request_id=name)
        assert (await _send_mail(service, RELAY, request_id="0")).id != ids["0"]
    assert len(relay.mails) == 301


@pytest.mark.parametrize(("send", "wait_for"), _WAYS, ids=_NAMES)
async def test_a_request_after_a_kill(
    relay: Relay, certificates: Certificates, tmp_path: Path, send: Send, wait_for: int
) -> None:
    """A request repeated after a kill in the middle of its mail has the same Message-ID, and one answer after it."""
    state = relay_settings(relay, certificates, tmp_path / "token") | sqlite_settings(tmp_path / "store.db")
    relay.faults = Faults(chunking=False, silent_at=".")
    async with Service(**state) as service:
        await service.wait_until_serving()
        call = asyncio.ensure_future(send(service, wait_for))
        await relay.wait_for_mails(1)
        await service.kill()
        await asyncio.wait((call,))
        with suppress(grpc.aio.AioRpcError):
            call.result()
    relay.faults = Faults()
    async with Service(**state) as service:
        await service.wait_until_serving()
        again = await send(service, wait_for)
        await relay.wait_for_mails(2)
        assert (await send(service, wait_for)).id == again.id
        assert await service.stop() == 0
    assert len(relay.mails) == 2
    assert [len(ids) for ids in message_ids(relay.mails).values()] == [1]


@pytest.mark.parametrize("send", [_send_mail, _send_code])
async def test_an_undecided_request_is_released(state: dict[str, Any], relay: Relay, send: Send) -> None:
    """A request whose mail was cancelled before the relay decided is free: the next one is a mail of its own."""
    relay.faults = Faults(final_reply="451 4.3.0 later")
    async with Service(**state) as service:
        await service.wait_until_serving()
        call = asyncio.ensure_future(send(service, RELAY))
        deferred = await service.wait_for_log("mail-deferred")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        first = str(deferred["mail"])
        async with asyncio.timeout(30):
            watched = service.mail.WatchMail(mail_pb2.WatchMailRequest(id=first))
            assert [mail.state async for mail in watched][-1] == mail_pb2.Mail.STATE_CANCELLED
        if _is_durable(state):
            assert await service.stop() == 0
    relay.faults = Faults()
    async with Service(**state) as service:
        await service.wait_until_serving()
        again = await send(service, RELAY, "eve")
        assert (again.state, again.id == first) == (mail_pb2.Mail.STATE_RELAYED, False)
        assert await service.stop() == 0
    assert len(relay.mails) == 1


@pytest.mark.parametrize("send", [_send_mail, _send_code])
async def test_a_refused_request_is_released(state: dict[str, Any], relay: Relay, send: Send) -> None:
    """A request that was refused, as while the relay is down, leaves its id free."""
    async with Service(**state | {"EMAIL_PORT": 1}) as service:
        await service.wait_for_log("relay-down")
        for name in ("ada", "eve"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(service, RELAY, name)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await send(service, QUEUE, "bob")).state == mail_pb2.Mail.STATE_QUEUED
        await service.kill()
    assert relay.mails == []
