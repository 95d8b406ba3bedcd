"""Reads what the relay of `otpmail dev` has caught, for the inbox and the screen; large mails in a thread.

Calls go on meanwhile. Large mails are read one after the other, so that many of them leave the loop its turns too.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from otpmail.dev.aside import AT_ONCE, work_on
from otpmail.dev.bodies import body_of, text_of, text_of_html
from otpmail.dev.caught import CaughtMail
from otpmail.dev.inbox import InboxMail

_MOST_SHOWN = 10_000  # characters of a text on the screen, which takes 12 ms for them


class ReadMail(NamedTuple):
    """A mail for the inbox, with the first characters of its text, and how many more there are."""

    mail: InboxMail
    text: str
    more: int

    def __repr__(self) -> str:
        return f"<ReadMail {self.mail!r}>"


def read_mail(caught: CaughtMail) -> ReadMail:
    """Parse a mail once. It takes a second for 10 MB of attachments, and several for as much HTML."""
    message = caught.message
    text = text_of(message)
    has_plain = bool(body_of(message, "plain").strip())  # else the text is that of the HTML
    html_text = text_of_html(body_of(message, "html")) if has_plain else ""
    shown = text[:_MOST_SHOWN]
    return ReadMail(InboxMail(caught, message, text, html_text), shown, len(text) - len(shown))


class Catcher:
    """Reads each mail that was caught, and calls `take` with it. Build it inside a running loop."""

    def __init__(self, take: Callable[[ReadMail], None]) -> None:
        self._take = take
        self._turn = asyncio.Lock()  # of large mails
        self._reading: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Catcher {len(self._reading)} mails being read>"

    def catch(self, caught: CaughtMail) -> asyncio.Task[None] | None:
        """Read a mail: a small one at once. Returns what ends once a large one is taken.

        A mail is taken whole also where nobody waits for that, since the relay has all of it.
        """
        if len(caught.content) <= AT_ONCE:
            self._take(read_mail(caught))
            return None
        task = asyncio.get_running_loop().create_task(self._read(caught))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return task

    async def _read(self, caught: CaughtMail) -> None:
        async with self._turn:
            self._take(await work_on(len(caught.content), lambda: read_mail(caught)))

    def close(self) -> None:
        """Take no mail any more."""
        for task in self._reading:
            task.cancel()
