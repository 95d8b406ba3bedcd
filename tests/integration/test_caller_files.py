"""Tokens as clients send them, and files of callers that change in every way while calls run."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from commands import otpmail
from integration.callers import RELAYED, UNKNOWN, Tls, as_caller, hello, open_channel, status_of, table, write
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from service import Service

_TOKEN = "shop-token"
_SECONDS = 60.0  # generous: the machine may be busy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a file of one caller."""
    file = tmp_path / "callers.toml"
    write(file, table("shop"))
    return file


async def test_tokens_on_the_wire(serve: Callable[..., Awaitable[Service]], file: Path) -> None:
    """A token counts with blanks around it, and in no other place or form; one of 10 MB harms nobody."""
    service = await serve(CALLERS_FILE=file)
    key = "authorization"
    for good in (f"Bearer {_TOKEN}", f"  bearer {_TOKEN}  ", f"BEARER   {_TOKEN}"):
        assert (await service.mail.SendMail(hello(), metadata=((key, good),))).mail.state == RELAYED
    for bad in ("", "Bearer", "Bearer ", _TOKEN, f"Basic {_TOKEN}", f"Bearer {_TOKEN}x", f"Bearer {_TOKEN},x"):
        assert await status_of(service.mail.SendMail(hello(), metadata=((key, bad),))) is UNKNOWN, bad
    for metadata in (
        (*as_caller("shop"), *as_caller("shop")),
        (("token", _TOKEN),),
        (("authorization-bin", f"Bearer {_TOKEN}".encode()),),
        ((key, f"Bearer {'x' * 60_000}"),),
    ):
        assert await status_of(service.mail.SendMail(hello(), metadata=metadata)) is UNKNOWN
    huge = ((key, f"Bearer {'x' * 10_000_000}"),)
    assert await status_of(service.mail.SendMail(hello(), metadata=huge, timeout=_SECONDS)) is not UNKNOWN
    sent = await service.mail.SendMail(hello(), metadata=as_caller("shop"), wait_for_ready=True, timeout=_SECONDS)
    assert sent.mail.state == RELAYED


@asynccontextmanager
async def _callers(service: Service, count: int) -> AsyncIterator[list[int]]:
    """Call for as long as the block runs, and yield how many calls each has made; a call that fails fails the test."""
    made, ending = [0] * count, asyncio.Event()

    async def call(number: int) -> None:
        while not ending.is_set():
            check = otp_pb2.ValidateCodeRequest(email=f"a{number}@example.org", code="000000")
            await service.otp.ValidateCode(check, metadata=as_caller("shop"), timeout=_SECONDS)
            made[number] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(call(number))
        yield made
        ending.set()


async def test_changes_under_load(serve: Callable[..., Awaitable[Service]], file: Path) -> None:
    """While the file changes again and again, none of the calls of 64 callers fails."""
    service = await serve(CALLERS_FILE=file)
    async with _callers(service, 64) as made:
        for number in range(1, 6):
            write(file, table("shop") + "".join(table(f"other{other}") for other in range(number)))
            await service.wait_for_log("reloaded", count=number, timeout=_SECONDS)
    assert all(made)  # each has made a call at least
    assert (await service.mail.SendMail(hello(), metadata=as_caller("other4"))).mail.state == RELAYED


async def test_a_thousand_signals(serve: Callable[..., Awaitable[Service]], file: Path) -> None:
    """SIGHUP a thousand times in a row costs no call, and a change that comes with the last one is in force."""
    service = await serve(CALLERS_FILE=file)
    async with _callers(service, 4):
        for _ in range(999):
            service.send(signal.SIGHUP)
            await asyncio.sleep(0)
        write(file, table("shop") + table("news"))
        service.send(signal.SIGHUP)
        await service.wait_for_log("reloaded", changed=["CALLERS_FILE"], timeout=_SECONDS)
    assert (await service.mail.SendMail(hello(), metadata=as_caller("news"))).mail.state == RELAYED


async def test_a_signal_reads_the_file_again(serve: Callable[..., Awaitable[Service]], file: Path) -> None:
    """SIGHUP reads the file even where it looks as before: the log has the line of a mistake again.

    The line about the settings, which comes before it, does not say that nothing has changed.
    """
    service = await serve(CALLERS_FILE=file)
    write(file, "[callers.shop]\n")
    await service.wait_for_log("reload-failed", setting="CALLERS_FILE", timeout=_SECONDS)
    write(file, "[callers.news]\n")
    await service.wait_for_log("reload-failed", count=2, setting="CALLERS_FILE", timeout=_SECONDS)
    one, other = service.logged("reload-failed", setting="CALLERS_FILE")
    assert one["message"] != other["message"]  # the file alone brings each line once
    service.send(signal.SIGHUP)
    again = await service.wait_for_log("reload-failed", count=3, setting="CALLERS_FILE", timeout=_SECONDS)
    assert again["message"] == other["message"]
    (line,) = service.logged("reloaded")
    assert line["message"] == "reloaded: nothing has changed so far; CALLERS_FILE is read next"


async def test_a_volume_of_kubernetes(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """Files behind a link to a folder, which is exchanged in one step, are taken together and without an error."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def fill(name: str, text: str) -> None:
        folder = volume / name
        folder.mkdir()
        tls.renew()
        for source in (tls.cert, tls.key):
            (folder / source.name).write_bytes(source.read_bytes())
        (folder / "callers.toml").write_text(text)
        link = volume / "..data_tmp"
        link.symlink_to(name)
        link.replace(volume / "..data")

    fill("first", table("shop"))
    paths = {name: volume / "..data" / name for name in (tls.cert.name, tls.key.name, "callers.toml")}
    cert, key, callers = paths.values()
    service = await serve(CALLERS_FILE=callers, TLS_CERT_FILE=cert, TLS_KEY_FILE=key)
    shown = await asyncio.to_thread(tls.serial_at, service.address)
    fill("second", table("news"))
    for setting in ("CALLERS_FILE", "TLS_CERT_FILE"):
        await service.wait_for_log("reloaded", changed=[setting], timeout=_SECONDS)
    assert await asyncio.to_thread(tls.serial_at, service.address) != shown
    assert "reload-failed" not in {line["event"] for line in service.log}
    async with open_channel(service, tls.client()) as channel:
        request = mail_pb2.GetMailRequest(id="0")
        get: Any = channel.unary_unary("/otpmail.v1.MailService/GetMail", mail_pb2.GetMailRequest.SerializeToString)
        assert await status_of(get(request, metadata=as_caller("shop"))) is UNKNOWN
        assert await status_of(get(request, metadata=as_caller("news"))) is grpc.StatusCode.NOT_FOUND


async def test_a_caller_that_is_shut_out(serve: Callable[..., Awaitable[Service]], file: Path) -> None:
    """`tokens = []` takes all tokens of a caller back and keeps its table; another token lets it in again."""
    service = await serve(CALLERS_FILE=file)
    assert (await service.mail.SendMail(hello(), metadata=as_caller("shop"))).mail.state == RELAYED
    write(file, "[callers.shop]\ntokens = []\nmethods = ['SendMail']\n")
    await service.wait_for_log("reloaded", changed=["CALLERS_FILE"], timeout=_SECONDS)
    assert await status_of(service.mail.SendMail(hello(), metadata=as_caller("shop"))) is UNKNOWN
    words = "shop: no token and no certificate, so nobody can call as it"
    checked = await otpmail("caller", "check", "--file", str(file))
    assert (checked.code, words in checked.err) == (0, True)
    assert words in (await otpmail("caller", "list", "--file", str(file))).out
    rotated = await otpmail("caller", "rotate", "shop", "--file", str(file))
    assert rotated.err.startswith("shop has 1 token now\n")
    token = rotated.out.strip()
    await service.wait_for_log("reloaded", count=2, changed=["CALLERS_FILE"], timeout=_SECONDS)
    sent = await service.mail.SendMail(hello(), metadata=(("authorization", f"Bearer {token}"),))
    assert sent.mail.state == RELAYED
    assert words not in (await otpmail("caller", "check", "--file", str(file))).err


async def test_callers_by_certificates_without_authorities(file: Path) -> None:
    """The commands warn where callers have certificates and no authority is set: the service refuses such a file."""
    words = "login: calls with certificates need TLS_CLIENT_CA_FILE, which is not set here"
    added = await otpmail("caller", "add", "login", "--san", "login.example", "--file", str(file), here=file.parent)
    assert (added.code, added.out, words in added.err) == (0, "", True)
    check = partial(otpmail, "caller", "check", "--file", str(file), here=file.parent)
    assert words in (await check()).err
    assert (await check(TLS_CLIENT_CA_FILE="ca.pem", TLS_CERT_FILE="cert.pem")).err == ""
    assert (await check(TLS_CLIENT_CA_FILE="ca.pem"))[::2] == (0, "")  # settings with a fault are those of no service
