"""The methods over HTTP with several processes, which share HTTP_PORT, and probes that speak for all of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import ssl
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from connectrpc.client import ConnectClient
from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType

from calls import scrape
from guaranteed import names
from http1 import JSON, SEND_CODE, SEND_MAIL, VALIDATE_CODE, call, request, url_of
from otpmail.v1 import otp_pb2
from ports import HOST, ReservedPort
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from integration.callers import Tls
    from relay import Relay

_SECONDS = 60  # in which whatever is waited for happens, also on a busy machine
_CALLERS = 40


@pytest.fixture
async def start(state: dict[str, Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start a service of two processes, or of so many; give it once all serve."""
    async with AsyncExitStack() as stack:

        async def start(processes: int = 2, **settings: Any) -> Service:
            several = {"PROCESSES": processes, "HTTP_PORT": 0, "LOG_MAILS": "all", "LOG_ADDRESSES": "full"}
            service = await stack.enter_async_context(Service(**state | several | settings))
            await service.wait_for_log("listening", count=processes, timeout=_SECONDS)
            await service.wait_for_log("relay-up", count=processes, timeout=_SECONDS)
            return service

        yield start


def _pid(service: Service, process: int) -> int:
    return int(str(service.logged("process-started", process=process)[-1]["pid"]))


def _mail(name: str, wait_for: str = "WAIT_FOR_RELAY") -> dict[str, Any]:
    return {"to": [f"{name}@example.org"], "subject": name, "text": "t", "waitFor": wait_for}


def _processes(service: Service) -> dict[str, object]:
    """Return which process has settled the mails of each caller, by the names of the callers."""
    settled = ((str(line["to"]).partition("-")[0], line["process"]) for line in service.logged("mail-settled"))
    return dict(settled)


@dataclass
class Callers:
    """Callers that each send mails over a connection of their own, as long as it is kept.

    `promised` are the names of mails that had 200, `refused` the last answers, `lost` why there was none.
    """

    reconnect: bool = False
    """Whether they go on where an answer, or a refusal, has ended their connection."""
    promised: set[str] = field(default_factory=set)
    refused: dict[str, tuple[int, Any]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    unconnected: set[str] = field(default_factory=set)
    stopped: bool = False

    def refusals(self) -> Iterator[tuple[int, str, str]]:
        """Yield the status, the code and the last detail of each refusal."""
        for status, error in self.refused.values():
            yield status, error["code"], error["details"][-1]["type"]

    async def run(self, service: Service, *, at_once: int = _CALLERS) -> None:
        """Send mails, half of which wait for the relay, until each caller was refused once or there is nobody."""
        url = urlsplit(url_of(service))
        assert url.hostname is not None
        assert url.port is not None
        await asyncio.gather(*(self._call(f"c{number}", url.hostname, url.port) for number in range(at_once)))

    async def wait_for_promises(self, total: int) -> None:
        """Return once that many mails have been promised."""
        async with asyncio.timeout(_SECONDS):
            while len(self.promised) < total:  # noqa: ASYNC110  each answer counts
                await asyncio.sleep(0.001)

    async def _call(self, caller: str, host: str, port: int) -> None:
        numbers = count()
        while not self.stopped:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except ConnectionError:
                self.unconnected.add(caller)
                return
            try:
                status = await self._call_on(caller, numbers, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.lost[caller] = repr(error)
                return
            finally:
                writer.close()
            if status != 200 and not self.reconnect:
                return

    async def _call_on(
        self, caller: str, numbers: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> int:
        """Call on a connection until it ends with an answer, and return the last status."""
        wait_for = "WAIT_FOR_QUEUE" if int(caller[1:]) % 2 else "WAIT_FOR_RELAY"
        while True:
            name = f"{caller}-{next(numbers)}"
            body = json.dumps(_mail(name, wait_for)).encode()
            head = f"POST {SEND_MAIL} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            status, closes, answer = await _answer(reader)
            if status == 200:
                self.promised.add(name)
            else:
                self.refused[caller] = status, json.loads(answer)
            if closes or self.stopped:
                return status


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Return the status of the next answer, whether the connection closes after it, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), b"connection: close" in head, await reader.readexactly(length)


async def test_methods_are_served_by_all_processes(start: Callable[..., Any], relay: Relay) -> None:
    """Calls over many connections reach both processes, and a code of one is checked by any of them once."""
    service = await start()
    answers = await asyncio.gather(*(call(service, SEND_MAIL, _mail(f"c{n}-0")) for n in range(_CALLERS)))
    assert {answer.json["mail"]["state"] for answer in answers} == {"STATE_RELAYED"}
    await service.wait_for_log("mail-settled", count=_CALLERS)
    assert set(_processes(service).values()) == {1, 2}
    code = (await call(service, SEND_CODE, {"email": "ada@example.org"})).json["otpCode"]
    checks = [call(service, VALIDATE_CODE, {"email": "ada@example.org", "code": code}) for _ in range(_CALLERS)]
    results = [answer.json["result"] for answer in await asyncio.gather(*checks)]
    assert results.count("RESULT_VALID") == 1
    assert (await request(service, "/openapi.json")).status == 200
    assert (await request(service, "/nothing")).status == 404
    assert len(relay.mails) == _CALLERS + 1
    assert await service.stop() == 0


async def test_the_client_of_connect(start: Callable[..., Any]) -> None:
    """A code that is sent over one connection of Connect's own client is checked over others, by any process."""
    service = await start()

    async def execute(name: str, message: Any) -> Any:
        """Call over a new connection."""
        method = otp_pb2.DESCRIPTOR.services_by_name["OtpService"].methods_by_name[name]
        info: MethodInfo[Any, Any] = MethodInfo(
            name=name,
            service_name="otpmail.v1.OtpService",
            input=getattr(otp_pb2, method.input_type.name),
            output=getattr(otp_pb2, method.output_type.name),
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=StreamType.UNARY,
        )
        codec = google_protobuf_binary_codec()
        async with ConnectClient(url_of(service), codec=codec, timeout_ms=20_000) as client:
            return await client.execute_unary(request=message, method=info)

    code = (await execute("SendCode", otp_pb2.SendCodeRequest(email="ada@example.org"))).otp_code
    check = otp_pb2.ValidateCodeRequest(email="ada@example.org", code=code)
    results = [(await execute("ValidateCode", check)).result for _ in range(4)]
    valid, gone = otp_pb2.ValidateCodeResponse.RESULT_VALID, otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
    assert results == [valid, gone, gone, gone]


async def test_callers_and_tls_are_those_of_each_process(start: Callable[..., Any], tls: Tls, tmp_path: Path) -> None:
    """Each connection needs a token for methods, none for probes, and gets a new certificate once it is there."""
    file = tmp_path / "callers.toml"
    file.write_text(f'[callers.shop]\ntokens = ["{sha256(b"shop").hexdigest()}"]\n')
    service = await start(CALLERS_FILE=file, HTTP_HOST="0.0.0.0", **tls.settings)
    assert url_of(service).startswith("https://0.0.0.0:")
    url = url_of(service).replace("0.0.0.0", "127.0.0.1")
    context = ssl.create_default_context(cafile=str(tls.ca))

    async def shown() -> set[bytes]:
        return {await asyncio.to_thread(tls.serial_at, url.removeprefix("https://")) for _ in range(8)}

    (first,) = await shown()
    tls.renew()
    async with asyncio.timeout(_SECONDS):
        while first in (seen := await shown()):
            pass
    assert len(seen) == 1
    body = json.dumps(_mail("c0-0")).encode()
    for fields, status in (({"authorization": "Bearer shop"}, 200), ({"authorization": "Bearer x"}, 401), ({}, 401)):
        answers = [request(url, SEND_MAIL, body, JSON | fields, tls=context) for _ in range(8)]
        assert {answer.status for answer in await asyncio.gather(*answers)} == {status}
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await request(url, path, tls=context)).status == 200


async def test_probes_speak_for_all_processes(start: Callable[..., Any]) -> None:
    """Whichever process takes a connection, /metrics has the sums, and a hung process is in /livez and serves nobody.

    Calls go on meanwhile: a process that hangs takes no connection.
    """
    service = await start()
    await asyncio.gather(*(call(service, SEND_MAIL, _mail(f"c{n}-0")) for n in range(_CALLERS)))
    for _ in range(8):
        assert (await scrape(service))["otpmail_mails_accepted_total"] == _CALLERS
    assert (await request(service, "/metrics?name[]=otpmail_processes")).text.splitlines()[
        -1
    ] == "otpmail_processes 2.0"
    packed = await request(service, "/metrics", headers={"accept-encoding": "gzip"})
    assert b"otpmail_processes 2.0" in gzip.decompress(packed.body)
    assert (await request(service, "/metrics", headers={"origin": "https://evil.example"})).status == 403
    pid = _pid(service, 2)
    os.kill(pid, signal.SIGSTOP)
    await service.wait_for_log("process-hangs", timeout=_SECONDS, process=2)
    answers = await asyncio.gather(*(call(service, SEND_MAIL, _mail(f"c{n}-1")) for n in range(_CALLERS)))
    assert {answer.status for answer in answers} == {200}
    live = {((await request(service, "/livez")).status, (await request(service, "/livez")).text) for _ in range(8)}
    assert live == {(503, f"not live: process 2 (pid {pid}) does not answer\n")}
    assert {(await request(service, "/readyz")).text for _ in range(8)} == {"ready\n"}
    assert (await scrape(service))["otpmail_mails_accepted_total"] == 2 * _CALLERS
    os.kill(pid, signal.SIGCONT)
    await service.wait_for_log("process-answers", timeout=_SECONDS, process=2)
    assert (await request(service, "/livez")).text == "live\n"


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_stop_loses_no_answer(start: Callable[..., Any], relay: Relay, processes: int) -> None:
    """Each of 64 callers that call while all processes stop is answered: 200, or 503 that says when to call again."""
    relay.faults = replace(relay.faults, delay=0.005)
    service = await start(processes)
    callers = Callers()
    running = asyncio.create_task(callers.run(service, at_once=64))
    await callers.wait_for_promises(300)
    assert await service.stop() == 0
    await running
    assert callers.lost == {}
    assert len(callers.refused) + len(callers.unconnected) == 64
    assert set(callers.refusals()) == {(503, "unavailable", "google.rpc.RetryInfo")}
    assert callers.promised <= set(names(relay.mails))


async def test_a_process_that_is_asked_to_end_loses_no_answer(start: Callable[..., Any], relay: Relay) -> None:
    """SIGTERM to one process ends its connections after an answer each; their callers go on at another process."""
    relay.faults = replace(relay.faults, delay=0.005)
    service = await start()
    callers = Callers(reconnect=True)
    running = asyncio.create_task(callers.run(service))
    await callers.wait_for_promises(300)
    os.kill(_pid(service, 2), signal.SIGTERM)
    assert (await service.wait_for_log("process-ended", timeout=_SECONDS))["exit_code"] == 0
    await service.wait_for_log("listening", count=3, timeout=_SECONDS)
    await callers.wait_for_promises(len(callers.promised) + 100)
    callers.stopped = True
    await running
    assert (callers.lost, callers.unconnected) == ({}, set())
    assert set(callers.refusals()) <= {(503, "unavailable", "google.rpc.RetryInfo")}
    assert await service.stop() == 0
    assert callers.promised <= set(names(relay.mails))


async def test_a_killed_process_loses_its_own_calls_alone(start: Callable[..., Any]) -> None:
    """Kill -9 of one process ends its connections. Those of the others go on, and so do new ones, at once."""
    service = await start()
    callers = Callers()
    running = asyncio.create_task(callers.run(service))
    async with asyncio.timeout(_SECONDS):
        while len(_processes(service)) < _CALLERS:  # noqa: ASYNC110  each line counts
            await asyncio.sleep(0.01)
    killed = {caller for caller, process in _processes(service).items() if process == 2}
    os.kill(_pid(service, 2), signal.SIGKILL)
    await service.wait_for_log("process-ended", timeout=_SECONDS)
    assert {(await request(service, "/readyz")).status for _ in range(8)} == {200}
    await callers.wait_for_promises(len(callers.promised) + 100)
    callers.stopped = True
    await running
    assert callers.lost.keys() == killed
    assert (callers.refused, callers.unconnected) == ({}, set())
    await service.wait_for_log("listening", count=3, timeout=_SECONDS)
    assert (await request(service, "/livez")).status == 200


@pytest.mark.parametrize("taken", ["by another", "by PORT"])
async def test_a_port_that_is_taken(state: dict[str, Any], taken: str) -> None:
    """The service ends with 2 and one line that names the settings, before any process starts."""
    with ExitStack() as opened:
        port = opened.enter_context(ReservedPort()).port
        if taken == "by another":
            opened.enter_context(socket.create_server((HOST, port)))
        given = {"PROCESSES": 2, "HTTP_PORT": port, "PORT": port if taken == "by PORT" else 0}
        (line,) = await Service(**state | given).refused(2)
    told = {
        "by another": f"HTTP_HOST, HTTP_PORT: can't listen on 127.0.0.1:{port}; another server is there, perhaps ",
        "by PORT": f"HTTP_PORT: is {port}, and so is PORT, where gRPC listens on 127.0.0.1; ",
    }
    assert line.startswith(told[taken])
