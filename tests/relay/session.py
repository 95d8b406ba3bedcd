"""One client's session with the relay, command by command, faults included."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, cast

from relay.certificates import HOST
from relay.faults import CaughtMail, Command
from relay.wire import Gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from relay.faults import Faults, Point
    from relay.server import Relay
    from relay.wire import Wire

T = TypeVar("T")
_PATH = re.compile(r'<((?:"(?:[^"\\<>\r\n]|\\.)*"(?=@))?[^<>\s"]*)>(?: (.*))?', re.ASCII)
_OPEN_BEFORE_TLS = frozenset({"EHLO", "HELO", "STARTTLS", "NOOP", "RSET", "QUIT"})
_CLOSING = "421 4.3.2 shutting down"
_LAST_OF_A_GROUP = frozenset({"EHLO", "HELO", "STARTTLS", "AUTH", "DATA"})  # RFC 2920, 3.1, RFC 3207, RFC 4954


@dataclass
class _Transaction:
    sender: str
    parameters: Mapping[str, str]
    recipients: list[str] = field(default_factory=list)
    chunks: bytearray = field(default_factory=bytearray)
    has_chunks: bool = False


class Session:
    """One client's session: reads a command, runs it and replies, until one side closes."""

    def __init__(self, relay: Relay, wire: Wire, number: int) -> None:
        self.wire = wire
        self._relay = relay
        self.number = number
        self._greeted = False
        self._over_tls = False
        self._username: str | None = None
        self._transaction: _Transaction | None = None
        self._waits_for_command = False
        self._asked = 0  # for how many mails it was sent MAIL
        self.taken = 0
        self.has_reset = False  # whether it was sent RSET, as at the end of a probe and of a mail
        self._said = 0  # replies, from that to the first MAIL on
        self._errors = 0  # replies that refuse for good
        self._held = b""  # replies that have not been let go
        self._auth_lines: list[str] = []
        self._name = ""  # in EHLO

    @property
    def is_idle(self) -> bool:
        """Whether there is no transaction, no unread input, no command at work and no reply that has not left."""
        at_work = self._transaction is not None or self.wire.has_input or self.wire.owes_replies
        return self._waits_for_command and not at_work

    @property
    def is_signed_in(self) -> bool:
        """Whether the client may send a mail: it is signed in, or need not sign in."""
        return self._username is not None or (self._greeted and not self._faults.auth)

    async def run(self) -> None:
        """Serve the client until the connection ends; errors of the relay itself are raised."""
        try:
            with contextlib.suppress(Gone):
                await self._connect()
                while True:
                    await self._next_command()
            await self.wire.flush()
        finally:
            self.wire.close()

    def recount(self) -> None:
        """Count the replies anew, from that to the next MAIL on."""
        self._said = 0

    def drop(self, reply: str | None) -> None:
        """Cut it, after an unasked reply if one is given."""
        if reply is None:
            self.wire.abort()
        else:
            self.wire.send(_on_the_wire(reply))
            self.wire.close()

    @property
    def _faults(self) -> Faults:
        return self._relay.faults

    def _fault(self, reply: str | None) -> str | None:
        """Return the reply of a fault, if it is set and strikes now."""
        return reply if reply is not None and self._strikes() else None

    def _strikes(self) -> bool:
        if not self._relay.strikes():
            return False
        self._relay.struck.add(self.number)
        return True

    def _by_chance(self, point: str) -> str | None:
        likely, reply = self._faults.chance.get(point, (0.0, ""))
        return reply if likely and self._relay.happens(likely) else None

    # The conversation.

    async def _connect(self) -> None:
        with self._handshake():
            await self.wire.open(self._relay.server_context() if self._faults.security == "tls" else None)
        greeting = self._crowded("CONNECT") or self._fault(self._faults.greeting) or "220 relay.test ESMTP"
        await self._answer("CONNECT", greeting)
        if not greeting.startswith("220"):
            await self._hang_up()

    def _crowded(self, point: str) -> str | None:
        """Return the refusal of a connection beyond those that it takes, if this is one."""
        faults = self._faults
        if faults.most_open is None or faults.crowded_at != point or self._relay.rank(self) < faults.most_open:
            return None
        return faults.crowded

    async def _read_command(self) -> bytes:
        try:
            async with asyncio.timeout(self._faults.idle_close):
                return await self.wire.read_line()
        except TimeoutError:
            self.drop(self._faults.idle_words)
            raise Gone from None

    async def _next_command(self) -> None:
        if self._faults.most_errors is not None and self._errors >= self._faults.most_errors:
            await self._answer("", "421 4.7.0 relay.test Error: too many errors")
        self._waits_for_command = True
        self._relay.notify_waiters()
        line = (await self._read_command()).decode("utf-8", "backslashreplace")
        self._waits_for_command = False
        verb, _, argument = line.partition(" ")
        verb = verb.upper()
        self._record(_masked(line) if verb == "AUTH" else line)
        if self._is_too_early(verb):
            await self._answer(verb, f"554 5.5.0 synchronization error: input came before the reply to {verb}")
            await self._hang_up()
        elif self._wants_tls_first(verb):
            await self._answer(verb, "530 5.7.0 must issue a STARTTLS command first")
        else:
            await self._COMMANDS.get(verb, Session._unknown)(self, argument)

    def _record(self, line: str) -> None:
        self._relay.record(Command(self.number, line))

    def _is_too_early(self, verb: str) -> bool:
        waits = verb in _LAST_OF_A_GROUP or (not self._faults.pipelining and verb != "BDAT")
        return self._faults.strict and waits and self.wire.has_input

    def _wants_tls_first(self, verb: str) -> bool:
        return self._offers_tls and verb not in _OPEN_BEFORE_TLS

    @property
    def _offers_tls(self) -> bool:
        return self._faults.security == "starttls" and not self._over_tls and not self._faults.starttls_stripped

    async def _answer(self, point: str, reply: str) -> None:
        """Send the reply, unless a fault at this point keeps it from being sent or ends the connection after it."""
        faults = self._faults
        if point in faults.slow:
            await asyncio.sleep(faults.slow[point])
        if self._is_at(faults.silent_at, point) and self._strikes():
            await self.wire.wait_ended()
            raise Gone
        if self._is_at(faults.cut_before_reply, point) and self._strikes():
            await self.wire.flush()
            self.wire.abort()
            raise Gone
        if not reply.startswith("421") and self._is_at(faults.closing_at, point) and self._strikes():
            reply = _CLOSING
        elif self._is_at(faults.extra_at, point) and self._strikes():
            reply += "\r\n250 2.0.0 one too many"
        is_last = self._is_at(faults.cut_after_reply, point)
        self._said += point == "MAIL" or self._said > 0
        self._errors += reply.startswith("5")
        self._held += _on_the_wire(reply)
        if not (faults.holds_replies and self.wire.has_input):
            self._let_go()
        if reply.startswith("421"):
            self._let_go()
            await self.wire.flush()
            await self.wire.part()
            await self._hang_up()
        if is_last and self._strikes():
            await self._hang_up()

    def _is_at(self, where: Point | None, point: str) -> bool:
        """Whether the reply that is due is the one meant: by its command, or by its number."""
        counted = point == "MAIL" or self._said > 0
        return where == point or (counted and where == self._said + 1)

    def _let_go(self) -> None:
        held, self._held = self._held, b""
        if held:
            self.wire.send(held, self._faults.delay)

    async def _hang_up(self) -> None:
        self._let_go()
        await self.wire.flush()
        self.wire.close()
        raise Gone

    # Greeting and TLS.

    async def _ehlo(self, argument: str) -> None:
        self._greet()
        if (refusal := self._fault(self._faults.refuse_ehlo)) is not None:
            await self._answer("EHLO", refusal)
            return
        self._name = argument
        offers = "\n".join(["250 relay.test", *self._offers(), "ENHANCEDSTATUSCODES"])
        await self._answer("EHLO", offers if argument else "501 5.5.4 EHLO needs a name")

    async def _helo(self, argument: str) -> None:
        self._greet()
        self._name = argument
        await self._answer("HELO", "250 relay.test" if argument else "501 5.5.4 HELO needs a name")

    def _greet(self) -> None:
        self._greeted = True
        self._transaction = None

    def _offers(self) -> list[str]:
        faults = self._faults
        announced = {"MAILMAX": faults.mail_max, "RCPTMAX": faults.rcpt_max}
        limits = [f"{name}={value}" for name, value in announced.items() if value is not None]
        offers = {
            "PIPELINING": faults.pipelining,
            "CHUNKING": faults.chunking,
            "SMTPUTF8": faults.smtputf8,
            "8BITMIME": faults.eightbitmime,
            "DSN": faults.dsn,
            f"SIZE {faults.size}": faults.size is not None,
            f"LIMITS {' '.join(limits)}": bool(limits),
            "STARTTLS": self._offers_tls,
            f"{faults.auth_keyword}{' '.join(faults.auth)}": bool(faults.auth) and not self._offers_tls,
        }
        return [*(name for name, offered in offers.items() if offered), *faults.announces]

    async def _starttls(self, argument: str) -> None:
        if not self._offers_tls:
            await self._answer("STARTTLS", "502 5.5.1 STARTTLS is not offered")
        elif argument:
            await self._answer("STARTTLS", "501 5.5.4 STARTTLS takes no argument")
        elif (refusal := self._fault(self._faults.refuse_starttls)) is not None:
            await self._answer("STARTTLS", refusal)
        else:
            self.wire.hold_input()
            await self._answer("STARTTLS", "220 2.0.0 go ahead")
            await self._start_tls()

    @contextlib.contextmanager
    def _handshake(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # ssl.SSLError, a lost connection or a handshake that took too long
            self._relay.handshake_failed()
            raise Gone from error

    async def _start_tls(self) -> None:
        with self._handshake():
            await self.wire.start_tls(self._relay.server_context())
        self._over_tls = True
        self._greeted = False  # RFC 3207, 4.2: as if it had just connected
        self._username = None
        self._transaction = None

    # AUTH (RFC 4954).

    async def _auth(self, argument: str) -> None:
        reply = self._crowded("AUTH") or await self._sign_in(argument)
        await self._answer("AUTH", reply)

    async def _sign_in(self, argument: str) -> str:
        self._auth_lines = [argument]
        mechanism, _, initial = argument.partition(" ")
        if self._username is not None or self._transaction is not None or not self._greeted:
            return "503 5.5.1 AUTH not now"
        if mechanism.upper() not in self._faults.auth:
            return "504 5.5.4 mechanism not offered"
        if self._faults.ignores_initial_responses:
            initial = ""
        if (refusal := self._fault(self._faults.refuse_mechanisms.get(mechanism.upper()))) is not None:
            return refusal
        return await self._exchange(mechanism.upper(), initial)

    async def _exchange(self, mechanism: str, initial: str) -> str:
        try:
            username = await self._MECHANISMS[mechanism](self, initial)
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return "501 5.5.2 cannot decode that"
        if username is None:
            return "535 5.7.8 wrong credentials"
        if (refusal := self._fault(_quoting(self._faults.refuse_auth, " ".join(self._auth_lines)))) is not None:
            return refusal
        self._username = username
        return "235 2.7.0 welcome"

    async def _plain(self, initial: str) -> str | None:
        _, username, password = (_decoded(initial) or await self._ask("")).split("\0")
        return self._known(username, password)

    async def _login(self, initial: str) -> str | None:
        first, second = self._faults.login_prompts
        username = _decoded(initial) or await self._ask(first)
        return self._known(username, await self._ask(second))

    async def _cram_md5(self, initial: str) -> str | None:
        if initial:
            raise ValueError(initial)
        challenge = f"<{self.number}.{len(self._relay.commands)}@relay.test>"
        username, _, digest = (await self._ask(challenge)).rpartition(" ")
        right = hmac.new(self._faults.password.encode(), challenge.encode(), "md5").hexdigest()
        return username if (username, digest) == (self._faults.username, right) else None

    async def _xoauth2(self, initial: str) -> str | None:
        given = _decoded(initial) or await self._ask("")
        username = self._faults.username
        if given == f"user={username}\x01auth=Bearer {self._faults.token}\x01\x01":
            return username
        await self._ask(json.dumps({"status": "401", "schemes": "bearer"}))  # as Google does: the client says ""
        return None

    async def _oauthbearer(self, initial: str) -> str | None:
        given = _decoded(initial) or await self._ask("")
        username, token = self._faults.username, self._faults.token
        where = f"host={HOST}\x01port={self._relay.port}"
        if given == f"n,a={username},\x01{where}\x01auth=Bearer {token}\x01\x01":
            return username
        if await self._ask(json.dumps({"status": "invalid_token"})) != "\x01":  # RFC 7628, 3.2.3
            raise ValueError(given)
        return None

    async def _external(self, initial: str) -> str | None:
        asked = _decoded(initial) if initial else await self._ask("")
        return self.wire.client_name if asked in {"", self.wire.client_name} else None

    async def _ask(self, challenge: str) -> str:
        await self._answer("AUTH", f"334 {base64.b64encode(challenge.encode()).decode()}")
        line = (await self.wire.read_line()).decode()
        self._auth_lines.append(line)
        return _decoded(line)

    def _known(self, username: str, password: str) -> str | None:
        return username if (username, password) == (self._faults.username, self._faults.password) else None

    # The transaction.

    async def _mail(self, argument: str) -> None:
        self._asked += 1
        await self._answer("MAIL", self._too_many_mails() or self._begin(argument))

    def _too_many_mails(self) -> str:
        """Return the refusal of a mail beyond those that a connection may carry; empty if this is another one."""
        faults = self._faults
        if faults.mail_max is not None and self._asked > faults.mail_max:
            return "421 4.5.3 too many mails"
        if faults.most_mails is not None and self._asked > faults.most_mails:
            return faults.no_more_mails
        return ""

    def _begin(self, argument: str) -> str:
        if not self._greeted:
            return "503 5.5.1 EHLO first"
        if self._transaction is not None:
            return "503 5.5.1 nested MAIL"
        if self._faults.auth and self._username is None:
            return "530 5.7.0 authentication required"
        path = _path("FROM:", argument)
        if path is None:
            return "501 5.5.4 say MAIL FROM:<address>"
        sender, parameters = path
        refusal = self._refusal_of(sender, parameters) or self._fault(self._faults.refuse_sender)
        refusal = refusal or self._by_chance("MAIL") or self._crowded("MAIL") or self._relay.too_fast()
        if refusal is not None:
            return refusal
        self._transaction = _Transaction(sender, parameters)
        return f"{self._faults.yes} 2.1.0 sender ok"

    def _refusal_of(self, sender: str, parameters: Mapping[str, str]) -> str | None:
        faults = self._faults
        allowed = {
            "SIZE": faults.size is not None,
            "BODY": faults.eightbitmime,
            "SMTPUTF8": faults.smtputf8,
            "AUTH": bool(faults.auth),
            "RET": faults.dsn,
            "ENVID": faults.dsn,
        }
        for name in parameters:
            if not allowed.get(name, False):
                return f"555 5.5.4 {name} is not offered"
        if parameters.get("BODY", "7BIT").upper() not in {"7BIT", "8BITMIME"}:
            return "501 5.5.4 unknown BODY"
        if not (size := parameters.get("SIZE", "0")).isdecimal():
            return "501 5.5.4 SIZE is a number"
        if faults.size is not None and int(size) > faults.size:
            return "552 5.3.4 too big"
        if not sender.isascii() and "SMTPUTF8" not in parameters:
            return "553 5.6.7 that address needs SMTPUTF8"
        return None

    async def _rcpt(self, argument: str) -> None:
        count = len(self._transaction.recipients) if self._transaction else 0
        limits = self._faults.rcpt_max, self._faults.most_recipients
        is_full = any(most is not None and count >= most for most in limits)
        await self._answer("RCPT", self._faults.full if is_full else self._add_recipient(argument))

    def _add_recipient(self, argument: str) -> str:
        if self._transaction is None:
            return "503 5.5.1 MAIL first"
        path = _path("TO:", argument)
        if path is None or not path[0]:
            return "501 5.5.4 say RCPT TO:<address>"
        recipient, parameters = path
        if parameters:
            return "555 5.5.4 no parameters offered"
        if not recipient.isascii() and "SMTPUTF8" not in self._transaction.parameters:
            return "553 5.6.7 that address needs SMTPUTF8"
        name_is_refused = self._faults.refuse_name and self._faults.refuse_name(self._name)
        refusal = self._fault(name_is_refused or self._faults.refuse_recipients.get(recipient))
        refusal = refusal or self._by_chance("RCPT")
        if refusal is not None:
            return refusal
        self._transaction.recipients.append(recipient)
        return f"{self._faults.yes} 2.1.5 recipient ok"

    async def _data(self, argument: str) -> None:
        refusal = "501 5.5.4 DATA takes no argument" if argument else self._refusal_of_data()
        if refusal is not None:
            await self._answer("DATA", refusal)
            return
        await self._answer("DATA", "354 go ahead")
        content = await self._read_content()
        self._record(".")
        await self._finish(".", "DATA", content)

    def _refusal_of_data(self) -> str | None:
        if self._transaction is None:
            return "503 5.5.1 MAIL first"
        if self._transaction.has_chunks:
            return "503 5.5.1 DATA after BDAT"
        if not self._transaction.recipients and not self._faults.data_without_recipients:
            return "554 5.5.1 no valid recipients"
        return self._fault(self._faults.refuse_data)

    async def _read_content(self) -> bytes:
        lines = []
        while (line := await self.wire.read_line()) != b".":
            lines.append(line.removeprefix(b"."))
        return b"".join(line + b"\r\n" for line in lines)

    async def _bdat(self, argument: str) -> None:
        if not self._faults.chunking:
            await self._unknown(argument, "BDAT")
            return
        parsed = re.fullmatch(r"(\d+)( LAST)?", argument, re.IGNORECASE | re.ASCII)
        if parsed is None:
            await self._answer("BDAT", "501 5.5.4 say BDAT size [LAST]")
            await self._hang_up()  # the length of the chunk is unknown
            return
        transaction = self._transaction
        in_sequence = transaction is not None and bool(transaction.recipients)
        if not in_sequence and self._faults.runs_refused_chunks:
            await self._answer("BDAT", "502 5.5.1 BDAT without recipients")
            return
        chunk = await self.wire.read_exactly(int(parsed[1]))
        if transaction is None or not in_sequence:
            self._forget_refused_chunks()
            await self._answer("BDAT", "503 5.5.1 BDAT without recipients")
            return
        transaction.has_chunks = True
        transaction.chunks += chunk
        if parsed[2]:
            await self._finish("BDAT", "BDAT", bytes(transaction.chunks))
        else:
            await self._answer("BDAT", f"250 2.0.0 {len(chunk)} octets")

    def _forget_refused_chunks(self) -> None:
        if not self._faults.sticky_bdat:
            self._transaction = None
        elif self._transaction is not None:
            self._transaction.chunks.clear()

    async def _finish(self, point: str, mode: Literal["DATA", "BDAT"], content: bytes) -> None:
        if self._faults.judging:
            await asyncio.sleep(self._faults.judging)
        refusal = self._refusal_of_content(content) or self._fault(_quoting(self._faults.final_reply, content))
        if refusal is None and self._is_at(self._faults.closing_at, point):
            refusal = self._fault(_CLOSING)
        reply = refusal or self._by_chance(".") or f"{self._faults.yes} 2.0.0 taken"
        if reply.startswith("2"):
            self._take(mode, content)
        elif mode == "BDAT":
            self._forget_refused_chunks()
        else:
            self._transaction = None
        await self._answer(point, reply)
        if reply.startswith("2") and self._has_enough():
            if self._faults.closes_silently:
                await self._hang_up()
            await self._answer("", _quoting(self._faults.parting, content) or "")

    def _has_enough(self) -> bool:
        likely = self._faults.close_by_chance
        return self.taken == self._faults.close_after or (likely > 0 and self._relay.happens(likely))

    def _refusal_of_content(self, content: bytes) -> str | None:
        if self._transaction is None or not self._transaction.recipients:
            return "554 5.5.1 no valid recipients"
        most = self._faults.most_at_content
        if most is not None and len(self._transaction.recipients) > most:
            return f"554 Transaction failed: Recipient count exceeds {most}."
        if self._faults.size is not None and len(content) > self._faults.size:
            return "552 5.3.4 too big"
        if not self._faults.eightbitmime and not content.isascii():
            return "554 5.6.1 8-bit content without 8BITMIME"
        return None

    def _take(self, mode: Literal["DATA", "BDAT"], content: bytes) -> None:
        transaction = cast("_Transaction", self._transaction)
        self._transaction = None
        self.taken += 1
        self._relay.catch(
            CaughtMail(
                connection=self.number,
                sender=transaction.sender,
                recipients=tuple(transaction.recipients),
                content=content,
                parameters=transaction.parameters,
                username=self._username,
                mode=mode,
            )
        )

    # The rest.

    async def _rset(self, argument: str) -> None:
        if (refusal := self._fault(self._faults.refuse_rset)) is not None:
            await self._answer("RSET", refusal)
            return
        self._transaction = None
        self.has_reset = True
        await self._answer("RSET", "501 5.5.4 RSET takes no argument" if argument else "250 2.0.0 forgotten")

    async def _noop(self, argument: str) -> None:  # noqa: ARG002 -- NOOP may have one (RFC 5321, 4.1.1.9)
        await self._answer("NOOP", "250 2.0.0 nothing done")

    async def _vrfy(self, argument: str) -> None:  # noqa: ARG002
        await self._answer("VRFY", "252 2.5.0 send it and see")

    async def _help(self, argument: str) -> None:  # noqa: ARG002
        code = 250 if self._faults.helps_with_250 else 214
        await self._answer("HELP", f"{code} 2.0.0 see RFC 5321")

    async def _quit(self, argument: str) -> None:  # noqa: ARG002
        await self._answer("QUIT", "221 2.0.0 goodbye")
        await self._hang_up()

    async def _unknown(self, argument: str, verb: str = "") -> None:  # noqa: ARG002
        await self._answer(verb, "500 5.5.1 no such command")

    _COMMANDS: ClassVar[dict[str, Callable[[Session, str], Awaitable[None]]]] = {
        "EHLO": _ehlo,
        "HELO": _helo,
        "STARTTLS": _starttls,
        "AUTH": _auth,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "BDAT": _bdat,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "HELP": _help,
        "QUIT": _quit,
    }
    _MECHANISMS: ClassVar[dict[str, Callable[[Session, str], Awaitable[str | None]]]] = {
        "PLAIN": _plain,
        "LOGIN": _login,
        "CRAM-MD5": _cram_md5,
        "XOAUTH2": _xoauth2,
        "OAUTHBEARER": _oauthbearer,
        "EXTERNAL": _external,
    }


def _path(keyword: str, argument: str) -> tuple[str, dict[str, str]] | None:
    """Read `FROM:<address> NAME=VALUE ...`, strictly: no space after the colon, no address without brackets."""
    if argument[: len(keyword)].upper() != keyword:
        return None
    parsed = _PATH.fullmatch(argument[len(keyword) :])
    if parsed is None:
        return None
    parameters = {}
    for parameter in (parsed[2] or "").split():
        name, _, value = parameter.partition("=")
        parameters[name.upper()] = value
    return parsed[1], parameters


def _quoting(reply: str | Callable[[T], str] | None, quoted: T) -> str | None:
    """Return the reply, which may be one that quotes something."""
    return reply(quoted) if callable(reply) else reply


def _masked(line: str) -> str:
    verb_and_mechanism = line.split(" ")[:2]
    return " ".join(verb_and_mechanism if line.count(" ") < len(verb_and_mechanism) else [*verb_and_mechanism, "***"])


def _decoded(text: str) -> str:
    if text == "*":
        raise ValueError(text)  # RFC 4954: the client gives up
    return base64.b64decode("" if text == "=" else text, validate=True).decode()


def _on_the_wire(reply: str) -> bytes:
    if "\r\n" in reply:
        return f"{reply}\r\n".encode("utf-8", "surrogateescape")
    code, lines = reply[:3], reply[4:].split("\n")
    return "".join([*(f"{code}-{line}\r\n" for line in lines[:-1]), f"{code} {lines[-1]}\r\n"]).encode(
        "utf-8", "surrogateescape"
    )
