"""Mails of other callers: an ordinary caller gets at none of them by any field, an operator at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from commands import otpmail
from guaranteed import redis_settings, sqlite_settings
from integration.callers import DENIED, as_caller, table, write
from otpmail.v1 import mail_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from relay import Certificates, Relay

RELAYED, FAILED, CANCELLED = (
    mail_pb2.Mail.STATE_RELAYED,
    mail_pb2.Mail.STATE_FAILED,
    mail_pb2.Mail.STATE_CANCELLED,
)
_REFUSED = {"later@example.org": "451 4.3.0 later", "wrong@example.org": "550 5.1.1 no such user"}
_OPEN = {mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING}
_SOME = ("relayed", "queued", "failed")
_TIMEOUT = 60.0  # generous: the machine may be busy


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def service(
    request: pytest.FixtureRequest, relay: Relay, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[Service]:
    """Start a service with an operator, and with callers that are none."""
    relay.faults = Faults(refuse_recipients=_REFUSED)
    file = tmp_path / "callers.toml"
    write(file, table("shop") + table("news") + table("ops", "operator = true") + table("desk", "operator = false"))
    state = {}
    if request.param == "sqlite":
        state = sqlite_settings(tmp_path / "store.db")
    elif request.param == "redis":
        state = redis_settings(request.getfixturevalue("redis"))
    settings = relay_settings(relay, certificates, tmp_path / "token") | state
    async with Service(**settings, CALLERS_FILE=file) as service:
        await service.wait_for_log("relay-up")
        yield service


async def _send(service: Service, caller: str) -> dict[str, mail_pb2.Mail]:
    """Send a mail that is relayed, one that waits and one that fails; returns them by these states."""
    mails = {}
    for state, local in zip(_SOME, ("ada", "later", "wrong"), strict=True):
        wait_for = mail_pb2.WAIT_FOR_QUEUE if state == "queued" else mail_pb2.WAIT_FOR_RELAY
        request = mail_pb2.SendMailRequest(
            to=[f"{local}@example.org"], text="Hello", request_id=f"{state}-1", wait_for=wait_for
        )
        mails[state] = (await service.mail.SendMail(request, metadata=as_caller(caller), timeout=_TIMEOUT)).mail
    await service.wait_for_log("mail-deferred", mail=mails["queued"].id)
    return mails


async def _refusals(
    service: Service, caller: str, of: str, mails: Iterable[mail_pb2.Mail]
) -> set[tuple[grpc.StatusCode, str | None]]:
    """Ask for the mails of `of` in every way there is, and return the statuses and words of the refusals."""
    calls: list[Any] = []
    stub: Any = service.mail
    how: dict[str, Any] = {"metadata": as_caller(caller), "timeout": _TIMEOUT}
    for mail in (*mails, mail_pb2.Mail(id="nothing", request_id="nothing")):
        for name in ({"id": mail.id}, {"request_id": mail.request_id}):
            calls += [
                stub.GetMail(mail_pb2.GetMailRequest(caller=of, **name), **how),
                stub.CancelMail(mail_pb2.CancelMailRequest(caller=of, **name), **how),
                anext(aiter(stub.WatchMail(mail_pb2.WatchMailRequest(caller=of, **name), **how))),
            ]
        calls.append(stub.RetryMail(mail_pb2.RetryMailRequest(id=mail.id, caller=of), **how))
        calls.append(stub.ListMails(mail_pb2.ListMailsRequest(caller=of, request_id=mail.request_id), **how))
    calls.append(stub.ListMails(mail_pb2.ListMailsRequest(caller=of), **how))
    refusals = set()
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        refusals.add((caught.value.code(), caught.value.details()))
    return refusals


async def test_no_caller_gets_at_the_mails_of_another(service: Service) -> None:
    """No method and no name shows, ends or sends another's mail, and no refusal tells whether there is one."""
    mails = await _send(service, "shop")
    for caller in ("news", "desk"):
        words = (
            f"caller: {caller} has no mails but its own; set `operator = true` in [callers.{caller}] of CALLERS_FILE"
        )
        for of in ("shop", "-", "nobody", "anonymous"):
            assert await _refusals(service, caller, of, mails.values()) == {(DENIED, words)}
        listed = await service.mail.ListMails(mail_pb2.ListMailsRequest(caller=caller), metadata=as_caller(caller))
        assert not listed.mails
    got = [await _get(service, "shop", id=mail.id) for mail in mails.values()]
    assert (got[0].state, got[2].state) == (RELAYED, FAILED)
    assert got[1].state in _OPEN
    assert {mail.caller for mail in got} == {""}


async def _get(service: Service, who: str, **fields: str) -> mail_pb2.Mail:
    return await service.mail.GetMail(mail_pb2.GetMailRequest(**fields), metadata=as_caller(who), timeout=_TIMEOUT)


async def _cancel(service: Service, request: mail_pb2.CancelMailRequest) -> mail_pb2.Mail:
    """Cancel a mail as the operator, once it is not with the relay."""
    while True:
        try:
            return await service.mail.CancelMail(request, metadata=as_caller("ops"), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            await asyncio.sleep(0.05)


async def test_an_operator_has_the_mails_of_all(service: Service, relay: Relay) -> None:
    """An operator lists the mails of all callers or of one, looks them up, cancels and retries them."""
    shop, news = [await _send(service, caller) for caller in ("shop", "news")]
    how: dict[str, Any] = {"metadata": as_caller("ops"), "timeout": _TIMEOUT}

    async def listed(**fields: Any) -> list[tuple[str, str]]:
        found = await service.mail.ListMails(mail_pb2.ListMailsRequest(**fields), **how)
        return sorted((mail.caller, mail.id) for mail in found.mails)

    ids = {name: [(name, mail.id) for mail in mails.values()] for name, mails in (("shop", shop), ("news", news))}
    assert await listed(caller="-") == sorted(ids["shop"] + ids["news"])
    assert await listed(caller="news") == sorted(ids["news"])
    assert await listed(caller="-", recipient="wrong@example.org") == sorted([ids["shop"][2], ids["news"][2]])
    assert await listed() == await listed(caller="nobody") == []
    for mail in shop.values():
        for fields in ({"id": mail.id, "caller": "-"}, {"request_id": mail.request_id, "caller": "shop"}):
            got = await _get(service, "ops", **fields)
            assert (got.id, got.caller) == (mail.id, "shop")
    for fields, status in (
        ({"id": shop["relayed"].id}, grpc.StatusCode.NOT_FOUND),
        ({"id": shop["relayed"].id, "caller": "news"}, grpc.StatusCode.NOT_FOUND),
        ({"id": "nothing", "caller": "-"}, grpc.StatusCode.NOT_FOUND),
        ({"request_id": "relayed-1", "caller": "-"}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _get(service, "ops", **fields)
        assert caught.value.code() is status
    watch = service.mail.WatchMail(mail_pb2.WatchMailRequest(id=shop["queued"].id, caller="-"), **how)
    assert (await anext(aiter(watch))).caller == "shop"
    cancelled = await _cancel(service, mail_pb2.CancelMailRequest(id=shop["queued"].id, caller="-"))
    assert (cancelled.state, cancelled.caller) == (CANCELLED, "shop")
    relay.faults = Faults()
    retried = await service.mail.RetryMail(mail_pb2.RetryMailRequest(id=news["failed"].id, caller="-"), **how)
    assert (retried.id, retried.caller) == (news["failed"].id, "news")
    settled = service.mail.WatchMail(mail_pb2.WatchMailRequest(id=retried.id), metadata=as_caller("news"))
    assert [mail.state async for mail in settled][-1] == RELAYED
    assert (await _get(service, "shop", id=shop["queued"].id)).state == CANCELLED


@pytest.mark.parametrize("service", ["memory"], indirect=True)
async def test_an_operator_at_the_command_line(service: Service) -> None:
    """The commands have the mails of a caller or of all, with its name; a refusal says what is missing."""
    shop = await _send(service, "shop")

    async def ran(*arguments: str, token: str = "ops-token") -> tuple[int, str, str]:
        return await otpmail("mail", *arguments, server=service.address, OTPMAIL_TOKEN=token)

    code, out, _ = await ran("list", "--all-callers")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [mail.id for mail in reversed(shop.values())]
    assert all("  shop  " in line for line in out.splitlines())
    code, out, _ = await ran("get", shop["relayed"].id, "--all-callers")
    assert (code, "of shop, accepted 20" in out) == (0, True)
    code, out, _ = await ran("get", "--request-id", "failed-1", "--caller", "shop")
    assert (code, shop["failed"].id in out) == (0, True)
    code, _, err = await ran("get", "--request-id", "failed-1", "--all-callers")
    assert (code, err) == (2, "--request-id: two callers may have used the same; name the one by --caller\n")
    await _cancel(service, mail_pb2.CancelMailRequest(id=shop["queued"].id, caller="-"))
    code, out, _ = await ran("cancel", shop["queued"].id, "--caller", "shop")
    assert (code, out.splitlines()[0]) == (0, f"mail {shop['queued'].id}: cancelled")
    code, out, _ = await ran("watch", shop["queued"].id, "--all-callers")
    assert (code, out.splitlines()[0]) == (1, f"mail {shop['queued'].id}: cancelled")
    code, out, _ = await ran("retry", "--state", "failed", "--all-callers")
    assert (code, out.splitlines()[0].split()[:2]) == (0, ["mail", f"{shop['failed'].id}:"])
    code, out, err = await ran("list", "--caller", "shop", token="news-token")
    assert (code, out) == (3, "")
    assert err.endswith("set `operator = true` in [callers.news] of CALLERS_FILE\n")
