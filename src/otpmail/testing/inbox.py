"""The mails that the service of the tests has caught, and the wait for the next one."""

import asyncio
from collections.abc import Callable
from threading import Condition
from time import monotonic
from typing import TypeVar

from otpmail.address import parse_address
from otpmail.dev.caught import CaughtMail, key_of
from otpmail.errors import InvalidArgument

WAIT_SECONDS = 5.0
_ANONYMOUS = "anonymous"
"""The namespace of mails that came without a token."""

FoundT = TypeVar("FoundT")


def mailbox_of(address: object) -> str:
    """Return the name of a mailbox. Raises TypeError and ValueError for an address to which no mail can come.

    A test would wait for that mail in vain.
    """
    if not isinstance(address, str):
        raise TypeError(f"address: must be text, not {type(address).__name__}")
    try:
        return parse_address(address, "address").key
    except InvalidArgument as error:
        raise ValueError(f"{error}: {address!r}") from None


def number(value: object, name: str) -> float:
    """Return an argument that is to be a number. Raises TypeError."""
    if not isinstance(value, int | float):
        raise TypeError(f"{name}: must be a number, not {type(value).__name__}")
    return value


class NoMailError(AssertionError):
    """No such mail came in time. The text says which mails did."""


class Mailroom:
    """All mails that were caught, by namespace. Threads wait here for the next one."""

    def __init__(self) -> None:
        self._mails: dict[str, list[CaughtMail]] = {}
        self._refusals: dict[str, dict[str, str]] = {}
        self._changed = Condition()
        self._problem = ""

    def __repr__(self) -> str:
        return f"<Mailroom {sum(map(len, self._mails.values()))} mails>"

    def add(self, namespace: str, mail: CaughtMail) -> None:
        """Take in a mail."""
        with self._changed:
            self._mails.setdefault(namespace, []).append(mail)
            for recipient in mail.recipients:
                self._refusals.get(namespace, {}).pop(key_of(recipient), None)
            self._changed.notify_all()

    def note_refusal(self, namespace: str, address: str, reply: str) -> None:
        """Note what the relay has replied to a recipient that it refused, until a mail to it is caught."""
        with self._changed:
            self._refusals.setdefault(namespace, {})[key_of(address)] = reply

    def refusal(self, namespace: str, mailbox: str) -> str:
        """Return the latest reply of that kind, empty without one."""
        with self._changed:
            return self._refusals.get(namespace, {}).get(mailbox, "")

    def close(self, problem: str) -> None:
        """Let nobody wait any more, since no mail comes."""
        with self._changed:
            self._problem = problem
            self._changed.notify_all()

    def drop(self, namespace: str) -> None:
        """Forget the mails of a namespace."""
        with self._changed:
            self._mails.pop(namespace, None)
            self._refusals.pop(namespace, None)

    def of(self, namespace: str) -> list[CaughtMail]:
        """Return the mails of a namespace, the oldest first."""
        with self._changed:
            return list(self._mails.get(namespace, ()))

    def wait(self, namespace: str, find: Callable[[list[CaughtMail]], CaughtMail | None], seconds: float) -> CaughtMail:
        """Return what `find` returns of the mails, as soon as that is a mail. Raises TimeoutError."""
        ends = monotonic() + seconds
        with self._changed:
            while (found := find(self._mails.get(namespace, []))) is None:
                left = ends - monotonic()
                if self._problem or left <= 0:
                    raise TimeoutError(self._problem)
                self._changed.wait(left)
            return found


async def _in_thread(call: Callable[[float], FoundT], wait: float) -> FoundT:
    __tracebackhide__ = True
    try:
        return await asyncio.to_thread(call, wait)
    except NoMailError as error:
        raise error.with_traceback(None) from None  # without the lines of asyncio's threads


class Inbox:
    """The mails of a namespace to one address. Each mail is returned once by `mail` and by `code`.

    `catch_up` returns once all mails that were caught before the call are in the mailroom.
    """

    def __init__(self, mailroom: Mailroom, namespace: str, address: str, catch_up: Callable[[], None]) -> None:
        self._mailroom, self._namespace, self._catch_up = mailroom, namespace, catch_up
        self.address = address
        self._seen: dict[str, int] = {"mail": 0, "code": 0}

    def __repr__(self) -> str:
        return f"<Inbox {self.address}, {len(self._of(self._mailroom.of(self._namespace)))} mails>"

    @property
    def mails(self) -> list[CaughtMail]:
        """All mails to the address until now, the oldest first."""
        self._catch_up()
        return self._of(self._mailroom.of(self._namespace))

    def code(self, wait: float = WAIT_SECONDS) -> str:
        """Return the code in the latest mail with one. If `code` has returned that already, wait for the next one.

        Raises NoMailError, an AssertionError, after `wait` seconds.
        """
        __tracebackhide__ = True  # pytest shows the test's own line alone
        return self._next("code", wait, lambda mail: bool(mail.code)).code

    def mail(self, wait: float = WAIT_SECONDS) -> CaughtMail:
        """Return the latest mail. If `mail` has returned that already, wait for the next one. Raises NoMailError."""
        __tracebackhide__ = True
        return self._next("mail", wait, lambda _: True)

    async def next_code(self, wait: float = WAIT_SECONDS) -> str:
        """Do as `code` does, while the event loop goes on: for a program that sends the code from the same loop."""
        __tracebackhide__ = True
        return await _in_thread(self.code, wait)

    async def next_mail(self, wait: float = WAIT_SECONDS) -> CaughtMail:
        """Do as `mail` does, while the event loop goes on."""
        __tracebackhide__ = True
        return await _in_thread(self.mail, wait)

    def _of(self, mails: list[CaughtMail]) -> list[CaughtMail]:
        wanted = mailbox_of(self.address)
        return [mail for mail in mails if wanted in map(key_of, mail.recipients)]

    def _next(self, what: str, wait: float, fits: Callable[[CaughtMail], bool]) -> CaughtMail:
        __tracebackhide__ = True
        count, wait = 0, number(wait, "wait")

        def find(mails: list[CaughtMail]) -> CaughtMail | None:
            """Return the latest mail that fits, if it is a new one."""
            nonlocal count
            fitting = [mail for mail in self._of(mails) if fits(mail)]
            count = len(fitting)
            return fitting[-1] if count > self._seen[what] else None

        try:
            found = self._mailroom.wait(self._namespace, find, wait)
        except TimeoutError as error:
            raise NoMailError(self._describe(what, wait, str(error))) from None
        self._seen[what] = count
        return found

    def _describe(self, what: str, wait: float, problem: str) -> str:
        if not problem:
            self._catch_up()
        caught = self._mailroom.of(self._namespace)
        others = "; ".join(f"{mail.subject!r} to {', '.join(mail.recipients)}" for mail in caught[-5:]) or "nothing"
        new = "new " * bool(self._seen[what])
        text = f"no {new}mail with a code" if what == "code" else f"no {new}mail"
        return f"{text} to {self.address} within {wait:g} s; {problem or f'caught: {others}{self._hint()}'}"

    def _hint(self) -> str:
        """Return why there may be no mail, empty where nothing is known."""
        if reply := self._mailroom.refusal(self._namespace, mailbox_of(self.address)):
            return f"; the relay refused {self.address}: {reply}"
        if self._of(self._mailroom.of(_ANONYMOUS)):
            return f"; one to {self.address} came from a program without a token, which needs OTPMAIL_TOKEN of the test"
        return ""
