"""The mails that `otpmail dev` caught, newest first, within a budget; callers can wait for one to an address."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage
from itertools import count
from time import time

from otpmail.dev.caught import CaughtMail, key_of

CODE_HEADER = "One-Time-Code"
"""The header with which a mail says its code. `otpmail dev` sets it for all mails with codes."""

_MOST_MAILS = 1000
_MOST_OCTETS = 64 << 20
_MOST_SUBJECT = 500  # characters
_MOST_PREVIEW = 300


class InboxMail:
    """A mail in the inbox: what was caught, its number, when it came, and what the list shows of it.

    It is built of the parsed mail, its text, and that of its HTML where this is another one. The parsed mail is not
    kept: it takes several times the octets of its content.
    """

    def __init__(self, caught: CaughtMail, message: EmailMessage, text: str, html_text: str) -> None:
        self.number = 0  # until the inbox has it
        self.caught = caught
        self.time = time()
        self.subject = _one_line(str(message.get("Subject", "")), _MOST_SUBJECT)
        self.code = _one_line(str(message.get(CODE_HEADER, "")), _MOST_SUBJECT)
        self.preview = _one_line(text, _MOST_PREVIEW)
        self.files = [part.get_filename() or "" for part in message.iter_attachments()]
        self.is_read = False
        self.delivered = frozenset(key_of(address) for address in caught.recipients)
        self.keys = self.delivered | {key_of(address) for address, _ in caught.refused}
        people = caught.sender, *caught.recipients, *(part for refused in caught.refused for part in refused)
        parts = self.subject, self.code, *people, *self.files, text, html_text
        self._searched = "\n".join(parts).casefold()

    @property
    def octets(self) -> int:
        """About how much memory it takes."""
        return len(self.caught.content) + len(self._searched)

    def has(self, words: str) -> bool:
        """Whether each of these words stands in the subject, the text, an address, a reply or the name of a file."""
        return all(word in self._searched for word in words.casefold().split())

    def __repr__(self) -> str:
        return f"<InboxMail {self.number}, {len(self.caught.content)} octets>"


class Inbox:
    """The mails that were caught, at most so many and of so many octets: the oldest give way.

    Build it inside a running loop.
    """

    def __init__(self, *, most_mails: int = _MOST_MAILS, most_octets: int = _MOST_OCTETS) -> None:
        self._most_mails, self._most_octets = most_mails, most_octets
        self._mails: OrderedDict[int, InboxMail] = OrderedDict()  # the oldest first
        self._numbers = count(1)
        self._octets = 0
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._followers: set[Callable[[InboxMail | None], None]] = set()
        self._deleted: InboxMail | None = None
        """The mail that was deleted by its number last, which may be put back."""

    def __repr__(self) -> str:
        return f"<Inbox {len(self._mails)} mails, {self._octets} octets>"

    @property
    def oldest(self) -> int:
        """The number of the oldest mail, 0 without one."""
        return next(iter(self._mails), 0)

    def add(self, mail: InboxMail) -> None:
        """Take a mail, and give it its number."""
        mail.number = next(self._numbers)
        self._put(mail)
        self._notify_followers(mail)

    def get(self, number: int) -> InboxMail | None:
        """Return a mail by its number."""
        return self._mails.get(number)

    def mails(self, address: str | None = None, *, delivered: bool = False) -> Iterator[InboxMail]:
        """Yield the mails, to an address or all, newest first; with `delivered` those that it did not refuse."""
        key = None if address is None else key_of(address)
        for mail in reversed(self._mails.values()):
            keys = mail.delivered if delivered else mail.keys
            if key in keys or (keys and key is None):
                yield mail

    def delete(self, number: int) -> bool:
        """Delete a mail by its number; whether it was there."""
        if number not in self._mails:
            return False
        self._deleted = self._remove(number)
        self._notify_followers(None)
        return True

    def put_back(self, number: int) -> bool:
        """Put the mail that was deleted last back to its place; whether it is the one of that number."""
        mail = self._deleted
        if mail is None or mail.number != number:
            return False
        self._deleted = None
        self._put(mail)
        self._notify_followers(None)
        return True

    def mark_read(self, number: int) -> bool:
        """Note that somebody has opened a mail; whether it is there."""
        mail = self._mails.get(number)
        if mail is not None and not mail.is_read:
            mail.is_read = True
            self._notify_followers(mail)
        return mail is not None

    def clear(self, address: str | None = None) -> int:
        """Delete the mails to an address, or all; returns how many."""
        numbers = [mail.number for mail in self.mails(address)]
        for number in numbers:
            self._remove(number)
        self._deleted = None
        if numbers:
            self._notify_followers(None)
        return len(numbers)

    async def wait_for(self, find: Callable[[], InboxMail | None], address: str, seconds: float) -> InboxMail | None:
        """Return what `find` finds, now or once mails to the address have come, None after so many seconds."""
        found = find()
        key = key_of(address)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while found is None:
                    waiting = asyncio.get_running_loop().create_future()
                    self._waiting[key].add(waiting)
                    try:
                        await waiting
                    finally:
                        if key in self._waiting:
                            self._waiting[key].discard(waiting)
                            if not self._waiting[key]:
                                del self._waiting[key]
                    found = find()
        return found

    def follow(self, follower: Callable[[InboxMail | None], None]) -> Callable[[], None]:
        """Call `follower` with each mail that comes or is opened, and with None where some were deleted.

        Returns what ends that.
        """
        self._followers.add(follower)
        return lambda: self._followers.discard(follower)

    def _put(self, mail: InboxMail) -> None:
        """Add a mail in the order of the numbers, let the oldest give way to it, and wake those who wait for one."""
        is_older = mail.number < next(reversed(self._mails), 0)
        self._mails[mail.number] = mail
        if is_older:
            self._mails = OrderedDict(sorted(self._mails.items()))
        self._octets += mail.octets
        while len(self._mails) > self._most_mails or (self._octets > self._most_octets and len(self._mails) > 1):
            self._remove(next(iter(self._mails)))
        for key in mail.keys:
            for waiting in self._waiting.pop(key, ()):
                if not waiting.done():
                    waiting.set_result(None)

    def _remove(self, number: int) -> InboxMail:
        mail = self._mails.pop(number)
        self._octets -= mail.octets
        return mail

    def _notify_followers(self, mail: InboxMail | None) -> None:
        for follower in list(self._followers):
            follower(mail)


def _one_line(text: str, most: int) -> str:
    """Return the first characters of a text, in one line."""
    return " ".join(text.split(maxsplit=most)[:most])[:most]
