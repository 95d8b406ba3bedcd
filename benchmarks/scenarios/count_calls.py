"""Counts the calls of our own functions that one SendMail, SendCode and ValidateCode make on an idle, warmed service.

It counts Python's call events for code under src/otpmail in the loop's thread: a resumed coroutine is another call.
Generated code and comprehensions are left out. A move is a call whose file differs from that of the call before. Each
method is called over gRPC, and ValidateCode over HTTP too. That is once without tokens and with the settings that ship,
and once with a token and all limits. The counts do not depend on the machine. `scripts/count-calls` prints them and
fails above the limits; with `--tree` it prints each call below its caller.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count, pairwise
from pathlib import Path
from types import FrameType
from typing import Any, Self

import grpc.aio
import uvloop

import otpmail
from benchmarks.load.calls import Metadata, metadata_of
from benchmarks.peers.asking import LIMITS as ALL_LIMITS
from benchmarks.peers.asking import write_callers
from benchmarks.peers.servers import Certificates, relay
from benchmarks.report.promise import Promise
from benchmarks.report.results import table
from otpmail.app import App
from otpmail.settings import Settings
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc

_SOURCE = f"{Path(otpmail.__file__).parent}/"
_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
_EMAIL = "ada@example.org"
_WARM_UP = 5  # calls of each method that are not counted
_SAMPLES = 7  # calls of each method, of which the shortest counts: a timer, or a split read, adds to one
_IDLE_SECONDS = 0.3  # before each call: longer than the batch window looks back, so that it holds no call back
_REST_SECONDS = 0.02  # after each call: what the answer does not wait for belongs to the call too

_ASKING = ", with a token and all limits"

LIMITS = {
    "SendMail": (130, 90),
    "SendCode": (180, 120),
    "ValidateCode": (54, 35),
    "ValidateCode over HTTP": (78, 54),
    f"SendMail{_ASKING}": (146, 102),
    f"SendCode{_ASKING}": (196, 132),
    f"ValidateCode{_ASKING}": (66, 45),
    f"ValidateCode over HTTP{_ASKING}": (86, 62),
}
"""The most calls and moves of one call to each method."""

Trace = list[tuple[int, str, str]]
"""Calls in order: how deep each is below the loop, its file and its qualified name."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The cost of one call to a method, in calls of our functions."""

    method: str
    calls: int
    moves: int
    files: int

    @classmethod
    def of(cls, method: str, trace: Trace) -> Self:
        """Sum a trace up."""
        files = [file for _, file, _ in trace]
        moves = sum(before != file for before, file in pairwise(files))
        return cls(method, len(files), moves, len(set(files)))


class CallTracer:
    """Records the calls of our functions in this thread within the block."""

    def __init__(self) -> None:
        self.trace: Trace = []
        self._depth = 0

    def __repr__(self) -> str:
        return f"<CallTracer {len(self.trace)} calls>"

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(_SOURCE) or "_pb2" in code.co_filename or code.co_name in _COMPREHENSIONS:
            return
        if event == "call":
            self.trace.append((self._depth, code.co_filename.removeprefix(_SOURCE), code.co_qualname))
            self._depth += 1
        elif event == "return":  # also where a coroutine is suspended
            self._depth -= 1


class Caller:
    """Makes the calls; each code that SendCode returns is validated once."""

    def __init__(self, channel: grpc.aio.Channel, http_port: int, metadata: Metadata) -> None:
        self._http_port = http_port
        self._http: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._metadata = metadata
        self._mails: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        self._codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)
        self._numbers = count()
        self._email = ""
        self._code = ""

    def __repr__(self) -> str:
        return "<Caller>"

    async def send_mail(self) -> None:
        """Send a text mail to one recipient, and wait until it is relayed."""
        request = mail_pb2.SendMailRequest(to=[_EMAIL], subject="Hello", text="Good morning")
        answer = await self._mails.SendMail(request, metadata=self._metadata)
        assert answer.mail.state == mail_pb2.Mail.STATE_RELAYED

    async def send_code(self) -> None:
        """Have a code mailed, and wait until its mail is relayed."""
        self._email = f"ada{next(self._numbers)}@example.org"  # since an address gets few mails in an hour
        answer = await self._codes.SendCode(otp_pb2.SendCodeRequest(email=self._email), metadata=self._metadata)
        assert answer.mail.state == mail_pb2.Mail.STATE_RELAYED
        self._code = answer.otp_code

    async def validate_code(self) -> None:
        """Validate the last code."""
        request = otp_pb2.ValidateCodeRequest(email=self._email, code=self._code)
        answer = await self._codes.ValidateCode(request, metadata=self._metadata)
        assert answer.result == otp_pb2.ValidateCodeResponse.RESULT_VALID

    async def validate_over_http(self) -> None:
        """Validate the last code by a POST in protobuf, on a connection that stays open."""
        if self._http is None:
            self._http = await asyncio.open_connection("127.0.0.1", self._http_port)
        reader, writer = self._http
        body = otp_pb2.ValidateCodeRequest(email=self._email, code=self._code).SerializeToString()
        fields = [f"{name}: {value}\r\n" for name, value in self._metadata]
        fields += ["host: localhost\r\n", "content-type: application/proto\r\n", f"content-length: {len(body)}\r\n"]
        writer.write(f"POST /otpmail.v1.OtpService/ValidateCode HTTP/1.1\r\n{''.join(fields)}\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        octets = await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        assert head.startswith(b"HTTP/1.1 200 ")
        answer = otp_pb2.ValidateCodeResponse.FromString(octets)
        assert answer.result == otp_pb2.ValidateCodeResponse.RESULT_VALID

    def close(self) -> None:
        """Close the connection of calls over HTTP."""
        if self._http is not None:
            self._http[1].close()


@asynccontextmanager
async def serving(directory: Path, changed: Mapping[str, object]) -> AsyncIterator[tuple[str, int | None]]:
    """Run the service in this thread, its relay in a process of its own, and yield its address and port of HTTP.

    The settings are those that ship, but for those that are `changed`.
    """
    async with relay(Certificates.make(directory)) as at:
        settings = {name: str(value) for name, value in at.environment.items()}
        settings |= {"HOST": "127.0.0.1", "PORT": "0", "OTP_RETURN_CODE": "true"}
        settings |= {name: str(value) for name, value in changed.items()}
        app, stop = App(Settings.load(**settings)), asyncio.Event()
        started: asyncio.Future[tuple[str, int | None]] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(app.run(stop, lambda *listens: started.set_result(listens)))
        yield await started
        stop.set()
        await running


async def trace(call: Callable[[], Awaitable[None]], before: Callable[[], Awaitable[None]] | None) -> list[Trace]:
    """Warm up, and return the traces of some calls; `before` runs before each and is not counted."""
    traces = []
    for _ in range(_WARM_UP + _SAMPLES):
        if before is not None:
            await before()
        await asyncio.sleep(_IDLE_SECONDS)
        with CallTracer() as tracer:
            await call()
            await asyncio.sleep(_REST_SECONDS)
        traces.append(tracer.trace)
    return traces[_WARM_UP:]


async def measure() -> dict[str, Trace]:
    """Return the shortest trace of each method, without and with a token and limits."""
    with tempfile.TemporaryDirectory(prefix="otpmail-benchmark-") as name:
        directory = Path(name)
        token = write_callers(file := directory / "callers.toml")
        usual = await measure_with(directory, {}, ())
        asking = await measure_with(directory, {**ALL_LIMITS, "CALLERS_FILE": file}, metadata_of(token))
    return usual | {f"{method}{_ASKING}": trace for method, trace in asking.items()}


async def measure_with(directory: Path, changed: Mapping[str, object], metadata: Metadata) -> dict[str, Trace]:
    """Return the shortest trace of each method with some settings changed."""
    async with serving(directory, changed) as (address, _), grpc.aio.insecure_channel(address) as channel:
        caller = Caller(channel, 0, metadata)
        samples = {
            "SendMail": await trace(caller.send_mail, None),
            "SendCode": await trace(caller.send_code, None),
            "ValidateCode": await trace(caller.validate_code, caller.send_code),
        }
    # Another service, since HTTP_PORT has metrics too, which look at each event.
    changed = {"HTTP_PORT": 0, **changed}
    async with serving(directory, changed) as (address, port), grpc.aio.insecure_channel(address) as channel:
        assert port is not None
        caller = Caller(channel, port, metadata)
        samples["ValidateCode over HTTP"] = await trace(caller.validate_over_http, caller.send_code)
        caller.close()
    return {method: min(traces, key=len) for method, traces in samples.items()}


def promises(rows: list[dict[str, Any]]) -> list[Promise]:
    """The limits, and the counts held against them. They hold in a quick run too."""
    return [
        Promise(what=f"{row['method']}, {figure}", figure=row[figure], at_most=limit, margin=1.0)
        for row in rows
        for figure, limit in zip(("calls", "moves"), LIMITS.get(row["method"], ()), strict=False)
    ]


def main() -> None:
    """Print the counts as a table, as a line of JSON, or with each call; end with 1 above a limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", action="store_true", help="print each call below its caller")
    parser.add_argument("--json", action="store_true", help="print a line of JSON")
    given = parser.parse_args()
    traces = uvloop.run(measure())
    rows = [asdict(Counts.of(method, calls)) for method, calls in traces.items()]
    if given.json:
        print(json.dumps({"rows": rows}), flush=True)
        return
    for method, calls in traces.items() if given.tree else ():
        print(method, *(f"{'  ' * depth}  {file} {name}" for depth, file, name in calls), "", sep="\n")
    print(table(rows))
    for promise in promises(rows):
        print(f"  {promise}")
    sys.exit(not all(promise.kept() for promise in promises(rows)))


if __name__ == "__main__":
    main()
