"""WatchMail by Connect's envelopes, and SendMails as lines of JSON."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from http1 import SEND_MAIL, call, request, url_of
from otpmail.api.reads import ReadTooSlow
from otpmail.errors import MemoryFull
from otpmail.limits.memory import Memory
from otpmail.v1 import mail_pb2
from otpmail.web.ending import STALLED_SECONDS
from otpmail.web.lines import LinesContext
from otpmail.web.listener import Listener
from web.listening import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from otpmail.web.exchange import Exchange
    from service import Service

OPEN: dict[str, object] = {"HTTP_PORT": 0}
WATCH, SEND_MAILS = "/otpmail.v1.MailService/WatchMail", "/otpmail.v1.MailService/SendMails"
STREAM = {"content-type": "application/connect+json"}
LINES = {"content-type": "application/jsonl"}


def _envelope(octets: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(octets).to_bytes(4, "big") + octets


def _messages(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        length = int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def _mail(number: int, **more: Any) -> dict[str, Any]:
    return {"to": ["ada@example.org"], "text": f"Hi {number}", "requestId": f"r{number}", **more}


@pytest.mark.service(**OPEN)
async def test_a_mail_is_watched(service: Service) -> None:
    """Each state is a message, and the last envelope says that the call has ended well."""
    sent = (await call(service, SEND_MAIL, _mail(1))).json["mail"]
    answer = await request(service, WATCH, _envelope(json.dumps({"id": sent["id"]}).encode()), STREAM)
    assert (answer.status, answer.fields["content-type"]) == (200, "application/connect+json")
    (flags, state), (last, end) = _messages(answer.body)
    assert (flags, json.loads(state)["state"], last, json.loads(end)) == (0, "STATE_RELAYED", 2, {})
    asked = mail_pb2.WatchMailRequest(id=sent["id"]).SerializeToString()
    answer = await request(service, WATCH, _envelope(asked), {"content-type": "application/connect+proto"})
    assert mail_pb2.Mail.FromString(_messages(answer.body)[0][1]).state == mail_pb2.Mail.STATE_RELAYED


@pytest.mark.service(**OPEN)
async def test_an_error_of_a_stream_is_in_its_end(service: Service) -> None:
    """The HTTP status is 200, as the protocol has it; what is no envelope is the caller's error."""
    for body, code in (
        (_envelope(b'{"id":"none"}'), "not_found"),
        (_envelope(b"{"), "invalid_argument"),
        (b"", "invalid_argument"),
        (b"\0\0\0\0\5{}", "invalid_argument"),
        (_envelope(b"{}", flags=1), "invalid_argument"),
        (_envelope(b"{}") * 2, "invalid_argument"),
    ):
        answer = await request(service, WATCH, body, STREAM)
        ((flags, end),) = _messages(answer.body)
        assert (answer.status, flags, json.loads(end)["error"]["code"]) == (200, 2, code)
    assert (await request(service, WATCH, b"{}", {"content-type": "application/json"})).status == 415


@pytest.mark.service(**OPEN)
async def test_many_mails_as_lines(service: Service) -> None:
    """Each mail has a line with its result; a bad mail is alone in it, and the last line needs no end."""
    mails = [_mail(number) for number in range(500)]
    mails[7]["to"] = ["nobody"]
    body = "\n".join(map(json.dumps, mails)).encode()
    answer = await request(service, SEND_MAILS, body, LINES)
    assert (answer.status, answer.fields["content-type"]) == (200, "application/jsonl")
    results = {line["requestId"]: line for line in map(json.loads, answer.text.splitlines())}
    assert len(results) == 500
    assert results.pop("r7")["code"] == 3
    assert {line["mail"]["state"] for line in results.values()} == {"STATE_RELAYED"}


@pytest.mark.service(**OPEN)
async def test_a_line_that_is_no_mail_ends_the_stream(service: Service) -> None:
    """Mails before it have their results, and the last line names the line and the field."""
    body = b"\n".join((json.dumps(_mail(1)).encode(), b"", b'{"subjekt": "x"}', json.dumps(_mail(2)).encode()))
    answer = await request(service, SEND_MAILS, body, LINES)
    *_, last = map(json.loads, answer.text.splitlines())
    assert last["error"]["code"] == "invalid_argument"
    assert "subjekt" in last["error"]["message"]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"no JSON", "invalid_argument"),
        (b'{"subjekt":"x"}', "invalid_argument"),
        (b'{"text":"' + b"x" * 20_000_000, "resource_exhausted"),  # as over gRPC
    ],
    ids=["text", "field", "long"],
)
@pytest.mark.service(**OPEN)
async def test_the_mails_before_a_line_that_is_none_are_sent(service: Service, broken: bytes, code: str) -> None:
    """Each mail in front of such a line has its result, also where all of them come at once."""
    lines = [json.dumps(_mail(number)).encode() for number in range(3)]
    answer = await request(service, SEND_MAILS, b"\n".join((*lines, broken, lines[0], b"")), LINES)
    *results, last = map(json.loads, answer.text.splitlines())
    assert {result["requestId"]: result["mail"]["state"] for result in results} == dict.fromkeys(
        ("r0", "r1", "r2"), "STATE_RELAYED"
    )
    assert last["error"]["code"] == code
    assert last["error"]["details"]


@asynccontextmanager
async def _stream_of_lines(service: Service) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Begin a stream of lines, of which none is sent yet."""
    url = urlsplit(url_of(service))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST {SEND_MAILS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/jsonl\r\n"
    writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


@pytest.mark.service(**OPEN)
async def test_lines_in_both_directions(service: Service) -> None:
    """A result comes while the stream is open, and the stream ends once its caller has sent its last line."""
    async with _stream_of_lines(service) as (reader, writer):
        for number in range(3):
            line = json.dumps(_mail(number)).encode() + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            while f'"r{number}"'.encode() not in (result := await reader.readline()):
                assert result
        writer.write(b"0\r\n\r\n")
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")


class _Lines:
    """An exchange whose body comes in these parts."""

    has_begun = True

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)

    async def read(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""


async def _at_once() -> None:
    pass


async def test_lines_count_in_the_memory_until_they_are_decoded() -> None:
    """Half a line counts as it comes, and nothing does after the call; a line too much is MemoryFull."""
    memory = Memory(1 << 20, _Nothing(), _Nothing())
    line = b'{"to":["ada@example.org"],"text":"%s"}\n' % (b"x" * 100_000)
    exchange = _Lines(line[:50_000], line[50_000:] + b"{", b'"a":"' + b"x" * 600_000, b"x")
    context = LinesContext(exchange, None, (), most=1 << 20, memory=memory, turn=_at_once)  # type: ignore[arg-type]
    batch = mail_pb2.SendMailsRequest.FromString(await context.read())
    assert len(batch.mails[0].text) == 100_000
    assert memory.reading == 1
    with pytest.raises(MemoryFull):
        await context.read()
    assert memory.reading > 600_000
    context.close()
    assert memory.reading == 0


class _Queued:
    """An exchange whose body comes in these parts, and then as `more` says."""

    has_begun = True
    waits_since: float | None = None

    def __init__(self, *parts: bytes) -> None:
        self.more: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent: list[bytes] = []
        for part in parts:
            self.more.put_nowait(part)

    async def read(self) -> bytes:
        return await self.more.get()

    async def write(self, body: bytes) -> None:
        self.sent.append(body)


def _context_of(exchange: _Queued) -> LinesContext:
    memory = Memory(1 << 20, _Nothing(), _Nothing())
    return LinesContext(
        exchange,  # type: ignore[arg-type]
        None,
        (),
        most=1 << 20,
        memory=memory,
        turn=_at_once,
        slow_seconds=0.0,
    )


async def test_a_line_that_does_not_come_whole() -> None:
    """A line that has begun has a time; before the first octet of one, its client may be silent for ever."""
    exchange = _Queued()
    context = _context_of(exchange)
    reading = asyncio.create_task(context.read())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not reading.done()
    exchange.more.put_nowait(b'{"text":"1"}\n')
    batch = mail_pb2.SendMailsRequest.FromString(await reading)
    assert [mail.text for mail in batch.mails] == ["1"]
    exchange.more.put_nowait(b'{"text":')
    with pytest.raises(ReadTooSlow):
        await context.read()


async def test_a_stream_says_when_it_waits_for_its_client_alone() -> None:
    """It does while it reads and each mail has its result, and not because of octets that are no mail."""
    exchange = _Queued()
    context = _context_of(exchange)
    reading = asyncio.create_task(context.read())
    await asyncio.sleep(0)
    since = exchange.waits_since
    assert since is not None
    exchange.more.put_nowait(b"\n")
    await asyncio.sleep(0)
    assert exchange.waits_since == since
    exchange.more.put_nowait(b'{"text":"1"}\n{"text":"2"}\n')
    await reading
    reading = asyncio.create_task(context.read())
    await asyncio.sleep(0)
    assert exchange.waits_since is None
    for _ in range(2):
        assert exchange.waits_since is None
        await context.write(mail_pb2.SendMailsResponse(results=[{}]))
    assert exchange.waits_since is not None
    reading.cancel()


@pytest.mark.parametrize("owes", [False, True])
async def test_streams_that_bring_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, owes: bool) -> None:  # noqa: FBT001  pytest's
    """A stream that waits for its client gives way after a second. One that owes a result stays."""
    loop = asyncio.get_running_loop()
    now, begun = loop.time, asyncio.Semaphore(0)

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/small":
            await exchange.answer(200, b"ok")
            return
        await exchange.begin(200)
        exchange.waits_since = None if owes else loop.time()
        begun.release()
        await exchange.read()

    async with listening(Listener(answer, most=2)) as port, asyncio.timeout(60):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in streams:
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            await begun.acquire()
        monkeypatch.setattr(loop, "time", lambda: now() + STALLED_SECONDS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (b"connection: close" in await reader.readuntil(b"ok")) is owes  # as one that may be for probes alone
        for _, each in (*streams, (reader, writer)):
            each.close()


class _Nothing:
    octets = 0

    def forget_oldest(self) -> bool:
        """There is nothing."""
        return False


@pytest.mark.service(**OPEN)
async def test_lines_that_come_slowly_have_their_head_at_once(service: Service) -> None:
    """A caller who may call knows it before the first line, by the status."""
    async with _stream_of_lines(service) as (reader, _):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
