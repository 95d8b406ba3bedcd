"""The process of `otpmail.testing`: the service with a relay of its own, controlled by lines of JSON.

It reads commands from standard input, whose end is its own, and writes answers and caught mails to standard output.
"""

import asyncio
import base64
import json
import os
import secrets
import sys
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from math import inf
from typing import Any

from otpmail.app import App
from otpmail.dev import failing
from otpmail.dev.caught import CaughtMail, key_of
from otpmail.dev.relay import CatchAllRelay
from otpmail.errors import SettingsError
from otpmail.events import AccessRenewed, Event, MailAccepted
from otpmail.otp.codes import CodeBook
from otpmail.settings import Settings
from otpmail.store.clock import StoreClock
from otpmail.telemetry.logs import set_up
from otpmail.testing.child_settings import CALLERS, checked, usual

_FIRST_CALLERS, _FURTHER_CALLERS = 10, 100
"""How many callers are in CALLERS_FILE at first, which the start has to read, and in each later one."""

_MOST_CALLERS = 10_000
"""So many namespaces that nobody has closed stay in CALLERS_FILE; one more takes the place of the oldest."""

_MOST_LINE = 1 << 20


class MovableLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be moved forward: its timers then come earlier."""

    ahead = 0.0

    def time(self) -> float:
        """Return the time of the loop's timers."""
        return super().time() + self.ahead


class Namespaces:
    """Callers in CALLERS_FILE, each for one namespace: none of them sees what another one has."""

    def __init__(self) -> None:
        self._unused: list[tuple[str, str]] = []
        self._taken: dict[str, str] = {}  # the tokens of those that nobody has closed
        self._count = 0

    def write(self) -> None:
        """Write a file with new callers, and with those that are taken."""
        for _ in range(_FURTHER_CALLERS if self._count else _FIRST_CALLERS):
            self._count += 1
            self._unused.append((f"test-{self._count}", secrets.token_urlsafe(32)))
        lines = ["[anonymous]", *_PERMISSIONS]
        for name, token in (*self._taken.items(), *self._unused):
            lines += [f"[callers.{name}]", f'tokens = ["{sha256(token.encode()).hexdigest()}"]', *_PERMISSIONS]
        new = CALLERS.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(CALLERS)

    def take(self) -> tuple[str, str]:
        """Return the name and the token of the next one."""
        name, token = self._unused.pop(0)
        self._taken[name] = token
        if len(self._taken) > _MOST_CALLERS:
            del self._taken[next(iter(self._taken))]
        return name, token

    def close(self, names: Iterable[str]) -> None:
        """Leave these out of the next file."""
        for name in names:
            self._taken.pop(name, None)

    def __len__(self) -> int:
        return len(self._unused)


_PERMISSIONS = ('priorities = ["urgent", "normal", "bulk"]',)


class Accepted:
    """Observes whose each mail is, and which code it has."""

    event_types: frozenset[type[Event]] = frozenset({MailAccepted, AccessRenewed})

    def __init__(self, book: CodeBook) -> None:
        self._book = book
        self._mails: dict[str, tuple[str, str]] = {}
        self._callers: dict[str, str] = {}
        self.renewed = asyncio.Event()

    def notify(self, event: Event) -> None:
        """Note a mail, or that new callers are in force."""
        if isinstance(event, MailAccepted):
            mail = event.mail
            code = "" if mail.issued is None else self._book.code(mail.issued.challenge)
            self._mails[mail.message_id.strip("<>")] = mail.caller, code
            self._callers[mail.id.upper()] = mail.caller
        else:
            self.renewed.set()

    def look_up(self, message_id: str) -> tuple[str, str]:
        """Return the caller and the code of a mail, both empty for an unknown one."""
        return self._mails.get(message_id.strip("<>"), ("", ""))

    def caller_of(self, mail_id: str) -> str:
        """Return the caller of a mail by its id in capitals, empty for an unknown one."""
        return self._callers.get(mail_id, "")


class Failure:
    """Refuses these addresses, or all if there are none, so many times or without an end."""

    def __init__(self, reply: int | str, addresses: Collection[str], times: int | None, *, suppress: bool) -> None:
        self.suppress = suppress
        self._reply = failing.reply_for(reply) if isinstance(reply, int) else reply
        self._addresses = frozenset(map(key_of, addresses))
        self._left = inf if times is None else times

    def __call__(self, address: str) -> str | None:
        """Return the reply to a recipient, None for one that is taken."""
        if self._left < 1 or (self._addresses and key_of(address) not in self._addresses):
            return None
        self._left -= 1
        return self._reply


class Refusals:
    """Which recipients the relay refuses: those of a test in its own mails, and addresses that name their failure."""

    def __init__(self, caller_of: Callable[[str], str]) -> None:
        self._caller_of = caller_of
        self._failures: dict[str, dict[int, Failure]] = {}
        self._spared: set[tuple[str, str]] = set()

    def begin(self, namespace: str, number: int, failure: Failure) -> None:
        """Let mails of a namespace fail until `end`. The latest failure that fits a recipient holds."""
        self._failures.setdefault(namespace, {})[number] = failure

    def end(self, namespace: str, number: int) -> None:
        """End the failure that began with this number."""
        failures = self._failures[namespace]
        del failures[number]
        if not failures:
            del self._failures[namespace]

    def __call__(self, address: str, mail_id: str) -> str | None:
        """Return the reply to a recipient, None for one that is taken."""
        for failure in reversed(self._failures.get(self._caller_of(mail_id), {}).values()):
            if (reply := failure(address)) is not None:
                self._note(address, mail_id, reply, is_spared=not failure.suppress)
                return reply
        reply = failing.reply_to(address)
        self._note(address, mail_id, reply, is_spared=failing.is_spared(address))
        return reply

    def _note(self, address: str, mail_id: str, reply: str | None, *, is_spared: bool) -> None:
        if reply is not None:
            _write_message(refused={"namespace": self._caller_of(mail_id), "address": address, "reply": reply})
        place = key_of(address), mail_id.upper()
        if is_spared:
            self._spared.add(place)
        else:
            self._spared.discard(place)

    def is_spared(self, address: str, mail_id: str) -> bool:
        """Whether the latest reply to a recipient of a mail is to suppress nothing, so that it ends with its test."""
        return (key_of(address), mail_id.upper()) in self._spared


class Child:
    """The service, its relay and its commands."""

    def __init__(self, loop: MovableLoop) -> None:
        self._loop = loop
        self._namespaces = Namespaces()
        self._refusals = Refusals(lambda mail_id: self._accepted.caller_of(mail_id))  # noqa: PLW0108  set later
        self._clock = StoreClock()
        self._stop = asyncio.Event()
        self._relay = CatchAllRelay(self._on_mail, self._refusals)

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Serve until there are no more commands. Raises SettingsError."""
        given = checked(json.loads(await commands.readline())["settings"])
        self._namespaces.write()
        settings = Settings.load(**usual(await self._relay.start()) | given)
        set_up(settings.server.log_format, settings.server.log_level)
        self._accepted = Accepted(CodeBook.of(settings.otp))
        self._app = App(settings, self._accepted, batch_seconds=0.0, clock=self._clock, spared=self._refusals.is_spared)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._app.run(self._stop, lambda address, _: _write_message(number=0, answer=address)))
            while line := await commands.readline():
                await self._obey(**json.loads(line))
            self._stop.set()
        await self._relay.close()

    async def _obey(self, number: int, do: str, **more: Any) -> None:
        answer: object = None
        match do:
            case "namespace":
                self._namespaces.close(more["closed"])
                answer = await self._namespace()
            case "advance":
                await self._advance(more["seconds"])
            case "fail":
                answer = number
                failure = Failure(more["reply"], more["addresses"], more["times"], suppress=more["suppress"])
                self._refusals.begin(more["namespace"], number, failure)
            case "heal":
                self._refusals.end(more["namespace"], more["failure"])
        _write_message(number=number, answer=answer)

    async def _namespace(self) -> tuple[str, str]:
        if not len(self._namespaces):
            self._accepted.renewed.clear()
            self._namespaces.write()
            self._app.renew(self._app.templates, self._app.credentials)
            await self._accepted.renewed.wait()
        return self._namespaces.take()

    async def _advance(self, seconds: float) -> None:
        self._clock.set_to(self._clock() + seconds)
        self._loop.ahead += seconds
        await asyncio.sleep(0)  # the timers that are due now run before the answer

    def _on_mail(self, mail: CaughtMail) -> None:
        if not mail.recipients:  # refused
            return
        namespace, code = self._accepted.look_up(str(mail.message["Message-ID"] or ""))
        content = base64.b64encode(mail.content).decode()
        caught = {"namespace": namespace, "code": code, "sender": mail.sender, "content": content}
        _write_message(mail={**caught, "recipients": mail.recipients, "refused": mail.refused})


def _write_message(**message: object) -> None:
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


async def _commands(loop: asyncio.AbstractEventLoop) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MOST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _main(loop: MovableLoop) -> None:
    await Child(loop).run(await _commands(loop))


def main(make_loop: Callable[[], MovableLoop] = MovableLoop) -> None:
    """Run the service until standard input ends. Exits with 2 after a line for each wrong setting."""
    loop = make_loop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_main(loop))
    except SettingsError as error:
        sys.exit("\n".join(error.problems))


if __name__ == "__main__":
    main()
