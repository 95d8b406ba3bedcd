"""Wraps every method of the service: it parses requests, maps errors to statuses, counts calls, starts them in batches.

The text of an unexpected exception never reaches a client. Methods are wrapped once, at the start: gRPC would call an
interceptor again for each call. Every door calls the same guarded methods, so that what one counts counts for all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Never

from google.protobuf.message import Message

from otpmail.api.auth import Admit
from otpmail.api.batching import Batching
from otpmail.api.methods import is_for_mails, takes_mail
from otpmail.api.parse import SMALL, Parser
from otpmail.api.reads import Reads
from otpmail.api.status import RpcStatus, status_for
from otpmail.callers import CALLER
from otpmail.errors import InvalidArgument, MemoryFull, Stopping
from otpmail.limits.memory import CALL_OCTETS, HELD, LARGE, READ_FACTOR, Held
from otpmail.mail.turns import Turn

Behaviour = Callable[..., Any]
"""A method: it takes a request and the context of its call."""

Refused = Callable[..., None]


async def _no_turn() -> None:
    pass


def _ignore(*_: object, **__: object) -> None:
    pass


class Guard:
    """Wraps methods, each by its path.

    A request is read by the call itself (`api.reads`), and parsed by the parser of its method's path. Without one the
    method gets its octets. A large one is parsed once `turn` ends, so that many that arrive together are not parsed at
    once. Octets of calls and of their requests count in the memory. `admit` is called first, where callers are asked
    who they are (`api.auth`), and `refused` for each call that ends with an error (`api.refusals`).

    `idle` is set while no wrapped call runs. Health and reflection have a guard of their own, which is never told to
    refuse calls: they must answer during a stop. Build it inside a running loop.
    """

    def __init__(
        self,
        batching: Batching,
        parsers: Mapping[str, Parser],
        reads: Reads,
        turn: Turn = _no_turn,
        *,
        admit: Admit | None = None,
        refused: Refused = _ignore,
    ) -> None:
        self._admit = admit
        self._reads = reads
        self._memory = reads.memory
        self._turn = turn
        self._refused = refused
        self._parsers = parsers
        self._running = 0
        self._stopping = False
        self.refused_calls = 0
        """How many calls came after `refuse_calls`."""
        self._release: asyncio.Event | None = None  # what refusals wait for, once they are held back
        self._batching = batching
        self._unary = 0  # running unary calls
        self.idle = asyncio.Event()
        self.idle.set()

    def __repr__(self) -> str:
        return f"<Guard {self._running} calls running{', stopping' if self._stopping else ''}>"

    def refuse_calls(self) -> None:
        """Reject each new call with UNAVAILABLE from now on: clients then try another server."""
        self._stopping = True

    def hold_refusals(self) -> asyncio.Event:
        """Answer no refused call from now on until the event that is returned is set."""
        self._release = asyncio.Event()
        return self._release

    def guard_call(self, method: str, behaviour: Behaviour, *, unary: bool) -> Behaviour:
        """Return a method, by its path, in its guard. It reads one request, or where it is not unary by its context."""
        parse, memory, ended = self._parsers.get(method), self._memory, self._reads.ended
        for_mails, is_mail = is_for_mails(method), takes_mail(method)
        read, note = partial(self._reads.read, is_mail=is_mail), self._reads.note

        async def guarded(requests: Any, context: Any) -> Any:
            """Run one call: one with a single request, or one that reads and writes a stream by its context.

            `requests` are the octets of a small request where its door has read it already.
            """
            running, taken, request = 0, CALL_OCTETS, requests
            memory.reading += taken
            try:
                try:
                    self._admit_caller(method, context, for_mails=for_mails)
                    if unary:
                        request = note(context, requests) if isinstance(requests, bytes) else await read(context)
                    running = 1  # not before: a stop does not wait for a request that never comes
                    taken += (octets := self._begin(request if unary else b"", parse, unary=unary, is_mail=is_mail))
                    memory.reading += octets
                    if unary and (turn := self._batching.take(self._unary)) is not None:
                        await turn
                    if parse is None:
                        return await behaviour(request, context)
                    # The method alone has what was parsed, so that it can let go of it.
                    if len(request) <= SMALL:
                        return await behaviour(parse(request), context)
                    parsing = self._parse_in_turn(parse, request)
                    request = None  # a large mail may wait for the relay for a minute
                    return await behaviour(await parsing, context)
                except ended:  # the call has its status already, or its caller has gone
                    raise
                except Exception as error:  # noqa: BLE001  no exception may reach the client in its own words
                    status = status_for(method, error)
                    self._refused(method, context, error, status=status, request=request, parse=parse)
                # Not while the error is handled: grpc.aio keeps what is raised here in a cycle, with the error and all
                # that its frames hold. Only the garbage collector frees that; of large requests it was gigabytes.
                request = None
                await self._abort(status, context)
            finally:
                memory.reading -= taken
                self._ended(running, unary=running * unary, is_mail=is_mail)

        return guarded

    async def _parse_in_turn(self, parse: Parser, octets: bytes) -> Message:
        """Parse a large request in a turn of its own: the method, in the next one, copies its texts."""
        await self._turn()
        parsed = parse(octets)
        await self._turn()
        return parsed

    def guard_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Return a method, by its path, that yields its responses, in its guard."""
        parse, memory, ended = self._parsers.get(method), self._memory, self._reads.ended
        for_mails = is_for_mails(method)

        async def guarded(_: Any, context: Any) -> AsyncIterator[Any]:
            """Run one call that yields its responses; its generator is closed when the caller goes."""
            running, taken, request = 0, CALL_OCTETS, None
            memory.reading += taken
            try:
                try:
                    self._admit_caller(method, context, for_mails=for_mails)
                    request = await self._reads.read(context)
                    running = 1
                    taken += (octets := self._begin(request, parse))
                    memory.reading += octets
                    parsed = request if parse is None else parse(request)
                    async with aclosing(behaviour(parsed, context)) as responses:
                        async for response in responses:
                            yield response
                except ended:  # the call has its status already, or its caller has gone
                    raise
                except Exception as error:  # noqa: BLE001  as above
                    status = status_for(method, error)
                    self._refused(method, context, error, status=status, request=request, parse=parse)
                else:
                    return
                request = None
                await self._abort(status, context)
            finally:
                memory.reading -= taken
                self._ended(running)

        return guarded

    async def _abort(self, status: RpcStatus, context: Any) -> Never:
        """End a call with its status, in a stop once callers may go. Raises AbortError."""
        if self._release is not None:
            await self._release.wait()
        await status.abort(context)

    def _admit_caller(self, method: str, context: Any, *, for_mails: bool) -> None:
        """Note whose call this is. Raises as `admit` does, and MemoryFull for a method whose mails have no room."""
        if self._admit is not None:
            CALLER.set(self._admit(method, context))
        if for_mails and self._memory.reading > self._memory.for_calls:
            raise MemoryFull

    def _begin(self, request: Any, parse: Parser | None, *, unary: bool = False, is_mail: bool = False) -> int:
        """Count a call that runs from now on. Return the octets that its request takes until the call ends.

        Raises Stopping where no new call may run, InvalidArgument where there is no request, and as `_weigh` does.
        """
        self._running += 1
        self._unary += unary
        self.idle.clear()
        if self._stopping:
            self.refused_calls += 1
            raise Stopping
        if not isinstance(request, bytes):  # the end, as each door has it
            raise InvalidArgument("request", "is missing")
        octets = len(request)
        return octets if octets < LARGE else self._weigh(request, octets, parse, is_mail=is_mail)

    def _weigh(self, request: bytes, octets: int, parse: Parser | None, *, is_mail: bool) -> int:
        """Return the octets that a large request takes until its call ends; those of a mail are HELD instead.

        Raises InvalidArgument for one that is no mail, and MemoryFull for a mail that is too large for what is left.
        """
        if is_mail:
            self._memory.make_room(READ_FACTOR * octets)
            HELD.set(Held(self._memory, octets))
            return 0
        if octets > SMALL and parse is not None:  # before it counts, so that nothing that is remembered gives way to it
            parse(request)  # raises: no other method has bounds for a large one
        return octets

    def _ended(self, running: int, *, unary: int = 0, is_mail: bool = False) -> None:
        """Count a call less, if it was running, and no more what its request takes."""
        if is_mail and (held := HELD.get()) is not None:
            held.release()
        self._unary -= unary
        self._running -= running
        if not self._running:
            self.idle.set()
