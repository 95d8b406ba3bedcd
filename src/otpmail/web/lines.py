"""SendMails as lines of JSON, since Connect has no stream in both directions on HTTP/1.1.

Each line of the request is a SendMailRequest, and each line of the answer a result, in the order in which mails are
done. A call that may not begin is answered by its status. Later an error that ends the stream is its last line, as
`{"error": {...}}`.
"""

import asyncio
import json
from typing import Any, Never

from otpmail.api.calls import End
from otpmail.api.reads import ReadTooSlow
from otpmail.api.status import Code
from otpmail.errors import CallerError, InvalidArgument, MemoryFull, RequestTooLong
from otpmail.limits.memory import LARGE, Memory
from otpmail.mail.turns import Turn
from otpmail.v1 import mail_pb2
from otpmail.web.answers import Fields
from otpmail.web.connect import JSON, decode
from otpmail.web.context import CallContext, Trailers
from otpmail.web.ending import LEAST_RATE, TIMES
from otpmail.web.errors import answer_error, error_of
from otpmail.web.exchange import Exchange

LINES = frozenset({b"application/jsonl", b"application/x-ndjson"})
"""The types of a body that is lines of JSON."""

_MOST_OF_BATCH = 1000


class LinesContext(CallContext):
    """A call whose requests are lines of JSON, and whose responses are written as such, with `fields` in their head.

    `read` returns the lines that are there as one batch in protobuf. A line has at most `most` octets, and once it has
    begun its client may be `slow_seconds` behind LEAST_RATE. Lines that are not decoded yet count in the memory.
    """

    def __init__(
        self,
        exchange: Exchange,
        seconds: float | None,
        fields: Fields,
        *,
        most: int,
        memory: Memory,
        turn: Turn,
        slow_seconds: float = TIMES.upload,
    ) -> None:
        super().__init__(exchange, _read_batch, seconds)
        self.fields = fields
        self.most = most
        self._memory, self._turn = memory, turn
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._counted = 0  # octets of both in the memory
        self._count = self._answered = 0  # mails
        self._slow_seconds = slow_seconds
        self._behind = 0.0  # seconds, with the line that has begun
        self._has_ended = False
        self._broken: CallerError | None = None
        """The error of a line that can't be read, raised once the lines before it were a batch."""
        self._reading: asyncio.Task[Any] | None = None

    async def read(self) -> bytes:
        """Return the next batch, anything but octets at the end. The end of the call ends it."""
        self._reading = asyncio.current_task()
        try:
            if not self.exchange.has_begun:  # so that a caller who may not call has a status
                await self.exchange.begin(200, (b"content-type", b"application/jsonl"), *self.fields)
            return await super().read()
        finally:
            self._reading = None

    async def read_batch(self) -> Any:
        """Return the lines that are there as one batch in protobuf.

        Raises InvalidArgument, RequestTooLong, ReadTooSlow and MemoryFull.

        The lines in front of one that can't be read are mails all the same: they are a batch of their own.
        """
        self._note_wait()
        while not self._lines and not self._has_ended and self._broken is None:
            await self._read_more()
        self.exchange.waits_since = None
        if not self._lines:
            if self._broken is not None:
                raise self._broken
            return End()
        taken, self._lines = self._lines[:_MOST_OF_BATCH], self._lines[_MOST_OF_BATCH:]
        batch = mail_pb2.SendMailsRequest()
        for line in taken:
            self._count += 1
            try:
                octets = await decode(JSON, line, mail_pb2.SendMailRequest, self._memory, self._turn)
            except InvalidArgument as error:
                self._broken = InvalidArgument(f"line {self._count}: {error.field}", error.description)
                self._lines = []
                break
            batch.mails.add().ParseFromString(octets)
        self._weigh()
        if self._broken is not None and not batch.mails:
            raise self._broken
        return batch.SerializeToString()

    async def _read_more(self) -> None:
        """Read a part of the body, and cut it into lines."""
        part = await self._read_part()
        self._rest += part
        self._has_ended = not part
        self._weigh()
        if b"\n" not in part and not self._has_ended and len(self._rest) <= self.most:
            return  # a long line comes in many parts
        *whole, rest = self._rest.split(b"\n")
        self._rest = rest
        self._lines = [bytes(line) for line in whole if line.strip()]
        if self._has_ended and rest.strip():
            self._lines.append(bytes(rest))
        if len(rest) > self.most:
            rest.clear()
            self._broken = RequestTooLong(f"a line of the request is longer than {self.most} octets")

    async def _read_part(self) -> bytes:
        """Return the next part of the body, empty at its end. It may be long in coming, unless a line has begun."""
        if not self._rest:
            return await self.exchange.read()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._slow_seconds - self._behind):
                part = await self.exchange.read()
        except TimeoutError:
            raise ReadTooSlow from None
        behind = self._behind + loop.time() - began - len(part) / LEAST_RATE
        self._behind = 0.0 if b"\n" in part else max(0.0, behind)
        return part

    def _note_wait(self) -> None:
        """Note since when the client owes the next mail: all earlier ones have their results."""
        if self._reading is not None and self._count == self._answered:
            self.exchange.waits_since = asyncio.get_running_loop().time()

    def _weigh(self) -> None:
        """Count what is there now in the memory. Raises MemoryFull where calls take their part of it."""
        octets = len(self._rest) + sum(map(len, self._lines))
        self._memory.reading += octets - self._counted
        self._counted = octets
        if self._memory.reading > self._memory.for_calls and octets > LARGE:
            raise MemoryFull

    def close(self) -> None:
        """Count nothing more."""
        self._memory.reading -= self._counted
        self._counted = 0
        self._rest.clear()
        self._lines.clear()

    async def write(self, response: mail_pb2.SendMailsResponse) -> None:
        """Send the results of a response."""
        await self.exchange.write(b"".join(JSON.encode(result) + b"\n" for result in response.results))
        self._answered += len(response.results)
        self._note_wait()

    async def abort(self, code: Code, message: str, trailers: Trailers = ()) -> Never:
        """End the call with a status, and what reads its requests."""
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        await super().abort(code, message, trailers)


async def _read_batch(context: CallContext) -> Any:
    assert isinstance(context, LinesContext)
    return await context.read_batch()


async def run_lines(guarded: Any, context: LinesContext, *, takes_tokens: bool) -> None:
    """Run a call, whose results are sent as they come. For `takes_tokens` see `answer_error`."""
    exchange = context.exchange
    try:
        await context.run(guarded(None, context))
    finally:
        context.close()
    if context.ended is not None and not exchange.has_begun:
        await answer_error(exchange, context.ended, context.fields, takes_tokens=takes_tokens)
        return
    last = b""
    if context.ended is not None:
        last = json.dumps({"error": error_of(context.ended)}, ensure_ascii=False).encode() + b"\n"
    await exchange.end(last)
