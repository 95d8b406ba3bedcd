"""SendMails as lines of JSON, since Connect has no stream in both directions on HTTP/1.1.

Each line of the request is a SendMailRequest, and each line of the answer a result, in the order in which mails are
done. An error that ends the stream is its last line, as `{"error": {...}}`.
"""

import asyncio
import json
from typing import Any, Never

from otpmail.api.calls import CallEnded, End
from otpmail.api.status import Code
from otpmail.errors import InvalidArgument
from otpmail.v1 import mail_pb2
from otpmail.web.connect import JSON, error_of
from otpmail.web.context import CallContext, Trailers
from otpmail.web.exchange import Exchange, Fields

LINES = frozenset({b"application/jsonl", b"application/x-ndjson"})
"""The types of a body that is lines of JSON."""

_MOST_OF_BATCH = 1000


class LinesContext(CallContext):
    """A call whose requests are lines of JSON, and whose responses are written as such.

    `read` returns the lines that are there as one batch in protobuf. A line has at most `most` octets.
    """

    def __init__(self, exchange: Exchange, seconds: float | None, *, most: int) -> None:
        super().__init__(exchange.connection, exchange.receive, _read_batch, seconds)
        self.exchange = exchange
        self.most = most
        self.rest = bytearray()
        self.lines: list[bytes] = []
        self.count = 0
        self.has_ended = False
        self._reading: asyncio.Task[Any] | None = None

    async def read(self) -> bytes:
        """Return the next batch, anything but octets at the end. The end of the call ends it."""
        self._reading = asyncio.current_task()
        try:
            return await super().read()
        finally:
            self._reading = None

    async def write(self, response: mail_pb2.SendMailsResponse) -> None:
        """Send the results of a response."""
        body = b"".join(JSON.encode(result) + b"\n" for result in response.results)
        await self.exchange.send({"type": "http.response.body", "body": body, "more_body": True})

    async def abort(self, code: Code, message: str, trailers: Trailers = ()) -> Never:
        """End the call with a status, and what reads its requests."""
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        await super().abort(code, message, trailers)


async def _read_batch(context: CallContext) -> Any:
    assert isinstance(context, LinesContext)
    while not context.lines and not context.has_ended:
        event = await context.receive()
        if event["type"] == "http.disconnect":
            raise CallEnded
        part = event.get("body", b"")
        context.rest += part
        context.has_ended = not event.get("more_body", False)
        if b"\n" not in part and not context.has_ended and len(context.rest) <= context.most:
            continue  # a long line comes in many parts
        *whole, rest = context.rest.split(b"\n")
        context.rest = rest
        context.lines = [bytes(line) for line in whole if line.strip()]
        if context.has_ended and rest.strip():
            context.lines.append(bytes(rest))
        if len(rest) > context.most:
            raise InvalidArgument("request", f"has a line of more than {context.most} octets")
    if not context.lines:
        return End()
    taken, context.lines = context.lines[:_MOST_OF_BATCH], context.lines[_MOST_OF_BATCH:]
    batch = mail_pb2.SendMailsRequest()
    for line in taken:
        context.count += 1
        try:
            batch.mails.add().ParseFromString(JSON.decode(line, mail_pb2.SendMailRequest))
        except InvalidArgument as error:
            raise InvalidArgument(f"line {context.count}: {error.field}", error.description) from None
    return batch.SerializeToString()


async def run_lines(guarded: Any, context: LinesContext, fields: Fields) -> None:
    """Run a call, whose results are sent as they come."""
    send = context.exchange.send
    head = [(b"content-type", b"application/jsonl"), *fields]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    try:
        await guarded(None, context)
    except CallEnded:
        pass
    except asyncio.CancelledError:
        if not context.take_cancellation():
            raise
    finally:
        context.close()
    last = b""
    if context.ended is not None:
        code, text, trailers = context.ended
        error = error_of(code, text, trailers[0][1] if trailers else b"")
        last = json.dumps({"error": error}, ensure_ascii=False).encode() + b"\n"
    await send({"type": "http.response.body", "body": last})
