"""The client of a Redis or Valkey server: what is asked for in one turn of the loop goes to it in one pipeline."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from otpmail.errors import Unavailable
from otpmail.store.redis.dial import Access, Locator, open_connection
from otpmail.store.redis.lane import IDLE_SECONDS, MARK, Command, Lane
from otpmail.store.redis.replies import (
    MOVES,
    RETRY_SECONDS,
    AnswerLost,
    Fault,
    fault,
    is_fault,
    kind_of,
    unavailable,
)
from otpmail.store.redis.resp import Value
from otpmail.store.redis.script import Script

_LANES = 3
_MOST_COMMANDS = 500  # in one pipeline, so that the next one is not held up
_MOST_OCTETS = 1 << 20


class Client:
    """Runs scripts and commands on the server that takes changes, over a few connections.

    A command is sent once. It is never cancelled in mid-air: a caller that is cancelled leaves its future only. Two
    commands of which the first was not awaited may run in either order. `failed` is called whenever the server is found
    to take no changes. While `is_away` is set, nothing but `probe` is sent. `mark` is a key that is written before
    each wait for replicas; in a cluster it is in the slot of the other keys.
    """

    def __init__(
        self,
        locator: Locator,
        access: Access,
        *,
        replicas: int = 0,
        lanes: int = _LANES,
        idle_seconds: float = IDLE_SECONDS,
        mark: bytes = MARK,
    ) -> None:
        self._locator = locator
        self._access = access
        self._replicas = replicas
        self._lanes = tuple(Lane(locator, access, idle_seconds=idle_seconds, mark=mark) for _ in range(lanes))
        self._probing = Lane(locator, access)
        self._idle = list(self._lanes)
        self._waiting: deque[Command] = deque()
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.is_away = False
        self.failed: Callable[[Fault], None] = lambda _: None

    def __repr__(self) -> str:
        busy = len(self._lanes) - len(self._idle)
        return f"<Client {self._probing.endpoint} {len(self._waiting)} waiting, {busy} pipelines under way>"

    @property
    def endpoint(self) -> str:
        """The server that was connected to last, as host:port."""
        return self._probing.endpoint

    @property
    def has_tls(self) -> bool:
        """Whether its connections are encrypted."""
        return self._access.context is not None

    def run(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[Value] = (),
        *,
        replicated: bool = False,
        reply_octets: int = 0,
    ) -> "asyncio.Future[Any]":
        """Run a script; what is returned has its result once the server has replied. Texts come back as bytes.

        `replicated`: as many replicas as the client was made for must have the change first. `reply_octets`: the
        reply may be that large, and gets time for it. It raises `replies.StoreRefuses` if the server refused and
        changed nothing, `replies.AnswerLost` if the script may have run, and otherwise Unavailable while the server is
        down.
        """
        replicas = self._replicas if replicated else 0
        return self._ask(script, (len(keys), *keys, *args), reply_octets=reply_octets, replicas=replicas)

    def command(self, *words: Value, reply_octets: int = 0) -> "asyncio.Future[Any]":
        """Send one command; it raises as `run` does."""
        return self._ask(None, words, reply_octets=reply_octets)

    async def connect(self) -> Connection:
        """Open a connection of its own to the server, as for a subscription. Raises as `probe` does."""
        return await open_connection(await self._locator.find(), self._access)

    async def probe(self, *words: Value) -> Any:
        """Send one command over a connection of its own, also while the server is down.

        Raises RedisError, OSError or TimeoutError; `fault` has the words.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            await self._probing.open()
            (answer,), _ = await self._probing.exchange([Command(None, words, reply)])
            if isinstance(answer, RedisError):
                raise answer
        except BaseException as error:
            if not isinstance(error, RedisError) or kind_of(error) in MOVES:
                await self._probing.close()
            raise
        return answer

    def fault(self, error: RedisError | OSError | TimeoutError) -> Fault:
        """Return what an error that `probe` has raised says of the server."""
        return fault(error, self._probing.endpoint)

    async def close(self) -> None:
        """Refuse what comes, wait for what is under way, and close the connections."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        for lane in (*self._lanes, self._probing):
            await lane.close()

    def _ask(
        self, script: Script | None, words: Sequence[Value], *, reply_octets: int = 0, replicas: int = 0
    ) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            reply.set_exception(Unavailable("the service is stopping"))
        elif self.is_away:
            reply.set_exception(_away())
        else:
            self._waiting.append(Command(script, words, reply, reply_octets=reply_octets, replicas=replicas))
            if not self._is_scheduled:
                self._is_scheduled = True
                loop.call_soon(self._send)
        return reply

    def _send(self) -> None:
        """Give what waits to the connections that are free."""
        self._is_scheduled = False
        while self._waiting and self._idle:
            lane = self._idle.pop()
            task = asyncio.get_running_loop().create_task(self._carry(lane, self._next_batch()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[Command]:
        batch: list[Command] = []
        octets = 0
        while self._waiting and len(batch) < _MOST_COMMANDS and octets < _MOST_OCTETS:
            command = self._waiting.popleft()
            octets += command.octets
            batch.append(command)
        return batch

    async def _carry(self, lane: Lane, batch: list[Command]) -> None:
        try:
            await self._exchange(lane, batch)
        except BaseException:  # a mistake of ours, or the loop ends: nobody may wait for ever
            for command in batch:
                if not command.reply.done():
                    command.reply.set_exception(_lost())
            raise
        finally:
            self._idle.append(lane)
            self._send()

    async def _exchange(self, lane: Lane, batch: list[Command]) -> None:
        try:
            await lane.open()
        except (RedisError, OSError, TimeoutError) as error:
            self._fail([*batch, *self._waiting], _away, fault(error, lane.endpoint))
            self._waiting.clear()
            return
        try:
            replies, acknowledged = await lane.exchange(batch)
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(batch, _lost, fault(error, lane.endpoint))
            return
        for command, reply in zip(batch, replies, strict=True):
            self._settle(command, reply, acknowledged, lane)
        if acknowledged < max(command.replicas for command in batch):
            await lane.close()  # another server may be the master by now
        elif any(isinstance(reply, RedisError) and kind_of(reply) in MOVES for reply in replies):
            await lane.close()

    def _settle(self, command: Command, reply: Any, acknowledged: int, lane: Lane) -> None:
        error: Exception | None = None
        if isinstance(reply, RedisError):
            error = unavailable(reply, lane.endpoint)
            if is_fault(reply):
                self.failed(fault(reply, lane.endpoint))
        elif acknowledged < command.replicas:
            error = AnswerLost("too few replicas of the store have the change", retry_after=RETRY_SECONDS)
        if command.reply.done():  # cancelled
            return
        if error is None:
            command.reply.set_result(reply)
        else:
            command.reply.set_exception(error)

    def _fail(self, commands: Sequence[Command], error: Callable[[], Unavailable], found: Fault) -> None:
        self.failed(found)
        for command in commands:
            if not command.reply.done():
                command.reply.set_exception(error())


def _away() -> Unavailable:
    return Unavailable("the store can't be reached", retry_after=RETRY_SECONDS)


def _lost() -> Unavailable:
    return AnswerLost("the store did not answer", retry_after=RETRY_SECONDS)
