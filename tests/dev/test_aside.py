"""Large mails are worked on in a thread: the page, and the calls of `otpmail dev`, go on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otpmail.dev import mails
from otpmail.dev.aside import AT_ONCE
from otpmail.dev.catching import read_mail
from otpmail.dev.caught import CaughtMail
from otpmail.dev.inbox import Inbox, InboxMail
from otpmail.dev.pages import DevPages
from otpmail.web.listener import Listener
from web.listening import listening

if TYPE_CHECKING:
    from collections.abc import Callable

ADA = "ada@example.org"
LARGE = (
    b"Subject: Large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/html\r\n\r\n<p>%s</p>\r\n"
    b"--b\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\nfile\r\n--b--\r\n"
) % (b"words " * AT_ONCE)


async def _get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()


class Gate:
    """Holds the work on a mail until it is opened."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the work, which waits for the gate first."""

        def run(*args: Any, **named: Any) -> Any:
            self.begun.set()
            assert self.opened.wait(20)
            return work(*args, **named)

        return run


@pytest.mark.parametrize(
    ("path", "place", "name", "answer"),
    [
        ("/mails/1", mails, "details", b'"html": "<p>words'),
        ("/mails/1/html", mails, "html_with_images", b"<p>words"),
        ("/mails/1/attachments/0", mails, "octets_of", b"\r\n\r\nfile"),
        ("/inbox?search=words", InboxMail, "has", b'"subject": "Large"'),
    ],
    ids=["details", "html", "attachment", "search"],
)
async def test_the_loop_goes_on(
    path: str, place: object, name: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a large mail is read or searched, another request is answered."""
    inbox, gate = Inbox(), Gate()
    inbox.add(read_mail(CaughtMail("a@b.example", (ADA,), LARGE)).mail)
    monkeypatch.setattr(place, name, gate.before(getattr(place, name)))
    async with listening(Listener(DevPages(inbox), most=10)) as port:
        first = asyncio.create_task(_get(port, path))
        assert await asyncio.to_thread(gate.begun.wait, 20)
        assert b" 200 " in await _get(port, "/")
        assert not first.done()
        gate.opened.set()
        assert answer in await first
