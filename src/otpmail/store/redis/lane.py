"""One connection to the server, which carries one batch of commands at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, RedisError

from otpmail.store.clock import elapsed
from otpmail.store.redis.dial import TIMEOUT, Access, Address, Locator, hang_up, open_connection, time_limit
from otpmail.store.redis.replies import is_reply
from otpmail.store.redis.resp import Value, pack_command, pack_words
from otpmail.store.redis.script import Script

IDLE_SECONDS = 60.0
"""After how long without a command a connection is replaced: a network between may have forgotten it without a word."""

MARK = b"wait"
"""The key that a connection writes before a wait for replicas, unless it is given another."""

_OCTETS_A_SECOND = 8 << 20  # that a network and a server carry at the least
_WAIT_MILLISECONDS = 500
_MARK_MILLISECONDS = 10_000
_EVALSHA = pack_words((b"EVALSHA",)) + b"\r\n$40\r\n"  # and a script's digest


class Command:
    """A command, or a script with its keys, as octets, and the future that gets the reply.

    `replicas` must have what it changed before its reply counts. `octets` are those of the command and of its reply,
    which may have so many.
    """

    __slots__ = ("_body", "_count", "_script", "octets", "replicas", "reply")

    def __init__(
        self,
        script: Script | None,
        words: Sequence[Value],
        reply: "asyncio.Future[Any]",
        *,
        reply_octets: int = 0,
        replicas: int = 0,
    ) -> None:
        self._script = script
        self._body = pack_words(words)
        self._count = len(words)
        self.reply = reply
        self.octets = len(self._body) + reply_octets
        self.replicas = replicas

    def packed(self, known: set[bytes]) -> bytes:
        """Return it as octets; a script's text stands in them unless this connection has run it before."""
        script = self._script
        if script is None:
            return pack_command(self._count, self._body)
        if script.digest in known:
            return pack_command(2 + self._count, _EVALSHA, script.digest, self._body)
        known.add(script.digest)
        return pack_command(2 + self._count, pack_words((b"EVAL", script.text)), self._body)


class Lane:
    """Sends batches over one connection, which is opened for the first batch, and again after it was lost.

    One that was idle for `idle_seconds` is replaced too. It writes `mark` last in a batch that replicas must have.
    """

    def __init__(
        self, locator: Locator, access: Access, *, idle_seconds: float = IDLE_SECONDS, mark: bytes = MARK
    ) -> None:
        self._locator = locator
        self._access = access
        self._idle_seconds = idle_seconds
        # Valkey's WAIT covers the last write of its own connection alone. A repeated command may find the change of an
        # earlier one, and write nothing. With a write of its own each batch waits for that change too.
        self._mark = pack_command(5, pack_words((b"SET", mark, b"", b"PX", _MARK_MILLISECONDS)))
        self._used = 0.0  # when it carried its last batch
        self._connection: Connection | None = None
        self._known: set[bytes] = set()
        self.endpoint = ""

    def __repr__(self) -> str:
        return f"<Lane {self.endpoint if self._connection else 'closed'}>"

    async def open(self) -> None:
        """Connect, unless it is connected. Raises RedisError, OSError or TimeoutError; no command was sent then.

        A connection that the server has closed meanwhile, as it may close idle ones, is replaced. On one that was idle
        for long a command might have no answer, and nobody would know whether it has run.
        """
        connection = self._connection
        if connection is not None and (elapsed() - self._used >= self._idle_seconds or await connection.can_read()):
            await self.close()
        if self._connection is None:
            try:
                address = await self._locator.find()
            except BaseException:
                self.endpoint = _shown(self._locator.asked)
                raise
            self.endpoint = _shown(address)
            self._known.clear()
            self._connection = await open_connection(address, self._access)
            self._used = elapsed()

    async def exchange(self, commands: Sequence[Command]) -> tuple[list[Any], int]:
        """Send the commands, and return their replies, errors included, with how many replicas have them all.

        Raises RedisError, OSError or TimeoutError where the connection is lost: each command may have run then.
        """
        replicas = max(command.replicas for command in commands)
        octets = sum(command.octets for command in commands)
        assert self._connection is not None
        try:
            async with time_limit(TIMEOUT + octets / _OCTETS_A_SECOND):
                answers = await self._exchange(self._connection, commands, replicas)
        except BaseException:
            await self.close()
            raise
        self._used = elapsed()
        return answers

    async def close(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await hang_up(connection)

    async def _exchange(
        self, connection: Connection, commands: Sequence[Command], replicas: int
    ) -> tuple[list[Any], int]:
        packed = [command.packed(self._known) for command in commands]
        replies, acknowledged = await self._send(connection, packed, replicas)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # as after SCRIPT FLUSH: the other commands have run
            self._known.clear()
            whole = [commands[place].packed(set()) for place in unknown]
            again, acknowledged = await self._send(connection, whole, replicas)
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        return replies, acknowledged

    async def _send(self, connection: Connection, packed: list[bytes], replicas: int) -> tuple[list[Any], int]:
        if replicas:
            packed = [*packed, self._mark, pack_command(3, pack_words((b"WAIT", replicas, _WAIT_MILLISECONDS)))]
        await connection.send_packed_command(b"".join(packed), check_health=False)
        replies = [await _read(connection) for _ in packed]
        if not replicas:
            return replies, 0
        *replies, _, acknowledged = replies  # a server without memory refuses the mark
        return replies, _as_count(acknowledged)


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _read(connection: Connection) -> Any:
    """Return the next reply; an error that the server has replied is returned too."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except RedisError as error:
        if is_reply(error):
            return error
        raise


def _as_count(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0
