"""Caught mails are read for the inbox and the screen; large ones in a thread, one after the other."""

from __future__ import annotations

import asyncio
import threading

import pytest

from otpmail.dev import catching
from otpmail.dev.aside import AT_ONCE
from otpmail.dev.catching import Catcher, ReadMail, read_mail
from otpmail.dev.caught import CaughtMail
from otpmail.dev.relay import CatchAllRelay

ADA = "ada@example.org"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ada@example.org>\r\n"


def _mail(subject: str, octets: int = 0) -> CaughtMail:
    return CaughtMail("a@b.example", (ADA,), f"Subject: {subject}\r\n\r\n{'x' * octets}\r\n".encode())


class Gate:
    """Holds the reading of large mails until it is opened, and notes which of them were begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)
        self.subjects: list[str] = []
        monkeypatch.setattr(catching, "read_mail", self._read)

    def _read(self, caught: CaughtMail) -> ReadMail:
        read = read_mail(caught)
        if len(caught.content) > AT_ONCE:
            self.subjects.append(read.mail.subject)
            self._loop.call_soon_threadsafe(self._begun.release)
            assert self._opened.wait(60)
        return read

    async def begun(self) -> None:
        """Wait until one more mail is being read."""
        async with asyncio.timeout(60):
            await self._begun.acquire()

    def open(self) -> None:
        """Let all go on."""
        self._opened.set()


async def test_the_loop_goes_on_while_a_large_mail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small mails are taken meanwhile; large ones wait for each other, and are taken in their order."""
    gate, taken = Gate(monkeypatch), list[str]()
    catcher = Catcher(lambda read: taken.append(read.mail.subject))
    tasks = [catcher.catch(_mail(f"large {number}", 2 * AT_ONCE)) for number in range(3)]
    await gate.begun()
    assert catcher.catch(_mail("small")) is None
    assert taken == ["small"]
    assert gate.subjects == ["large 0"]
    gate.open()
    for task in tasks:
        assert task is not None
        await task
    assert taken == ["small", "large 0", "large 1", "large 2"]


@pytest.mark.parametrize("form", ["BDAT", "DATA"])
async def test_a_reply_comes_once_its_mail_is_taken(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Another connection is served meanwhile. A client that has its reply finds its mail in the inbox."""
    gate, taken = Gate(monkeypatch), list[str]()
    relay = CatchAllRelay(Catcher(lambda read: taken.append(read.mail.subject)).catch)
    port = await relay.start()
    content = _mail("large").content + (b"x" * 70 + b"\r\n") * 500
    sent = b"BDAT %d LAST\r\n%b" % (len(content), content) if form == "BDAT" else b"DATA\r\n%b.\r\n" % content
    try:
        async with asyncio.timeout(60):
            reader, writer = await _greeted(port)
            writer.write(ENVELOPE + sent)
            await gate.begun()
            other, others_writer = await _greeted(port)
            others_writer.write(b"NOOP\r\n")
            assert (await other.readline()).startswith(b"250")
            assert taken == []
            gate.open()
            for _ in range(2 + (form == "DATA")):
                await reader.readline()
            assert (await reader.readline()).startswith(b"250 2.6.0")
            assert taken == ["large"]
            writer.close()
            others_writer.close()
    finally:
        await relay.close()


async def test_a_client_that_goes_leaves_its_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay has the whole mail, so it is taken also where nobody waits for the reply."""
    gate = Gate(monkeypatch)
    taken: asyncio.Queue[str] = asyncio.Queue()
    relay = CatchAllRelay(Catcher(lambda read: taken.put_nowait(read.mail.subject)).catch)
    content = _mail("large", 2 * AT_ONCE).content
    try:
        async with asyncio.timeout(60):
            _, writer = await _greeted(await relay.start())
            writer.write(ENVELOPE + b"BDAT %d LAST\r\n%b" % (len(content), content))
            await gate.begun()
            writer.transport.abort()
            gate.open()
            assert await taken.get() == "large"
    finally:
        await relay.close()


async def _greeted(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"EHLO test\r\n")
    while not (await reader.readline()).startswith(b"250 "):
        pass
    return reader, writer
