"""One port served by several processes, with a store on a real Redis server: PROCESSES=2."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from calls import scrape
from guaranteed import KEYS, Callers, Copies, LastCalls, names, redis_settings, request
from otpmail.rpc.transport import server_options
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc
from redis_server import KINDS, RedisServer, find_server
from relay import Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from relay import Certificates

_CALLERS = 40
_SECONDS = 60  # in which whatever is waited for happens, also on a busy machine


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Start a server; which kind makes no difference here."""
    kind = next((kind for kind in KINDS if find_server(kind) is not None), None)
    if kind is None:
        pytest.skip("there is no server of Redis: run scripts/install-servers")
    with RedisServer(kind) as server:
        yield server


@pytest.fixture
async def start(server: RedisServer, certificates: Certificates, tmp_path: Any) -> AsyncIterator[Callable[..., Any]]:
    """Start a relay and a service of two processes with it; give both once all processes serve."""
    async with AsyncExitStack() as stack:

        async def start(faults: Faults | None = None, **settings: Any) -> tuple[Service, Relay]:
            relay = await stack.enter_async_context(Relay(faults or Faults(auth=()), certificates=certificates))
            shared = {"PROCESSES": 2, "HTTP_PORT": 0, **redis_settings(server), "LOG_MAILS": "all"}
            service = Service(**relay_settings(relay, certificates, tmp_path / "token") | shared | settings)
            await stack.enter_async_context(service)
            await service.wait_for_log("listening", count=2, timeout=_SECONDS)
            await service.wait_for_log("relay-up", count=2, timeout=_SECONDS)
            return service, relay

        yield start


def _pids(service: Service) -> dict[int, int]:
    """Return the ids of the processes that were started last, by their numbers."""
    return {int(str(line["process"])): int(str(line["pid"])) for line in service.logged("process-started")}


async def _by_many(service: Service, call: Callable[[grpc.aio.Channel, int], Awaitable[Any]]) -> list[Any]:
    """Make a call over each of many connections, and return the answers."""

    async def connected(number: int) -> Any:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        async with grpc.aio.insecure_channel(service.address, options) as channel:
            return await call(channel, number)

    return await asyncio.gather(*(connected(number) for number in range(_CALLERS)))


async def _send_by_many(service: Service, wait_for: mail_pb2.WaitFor.ValueType) -> list[Any]:
    """Send a mail over each of many connections."""

    async def send(channel: grpc.aio.Channel, number: int) -> Any:
        stub: Any = mail_pb2_grpc.MailServiceStub(channel)
        return await stub.SendMail(request(f"p{number}", wait_for=wait_for))

    return await _by_many(service, send)


async def _gone(pids: list[int]) -> None:
    """Wait until none of these processes runs."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    async with asyncio.timeout(_SECONDS):
        while any(map(runs, pids)):  # noqa: ASYNC110  no event tells the end of another's process
            await asyncio.sleep(0.02)


async def test_callers_are_spread_and_metrics_are_sums(start: Callable[..., Any]) -> None:
    """Connections go to both processes of the port, whose lines name them; /metrics and /readyz speak for both."""
    service, relay = await start()
    answers = await _send_by_many(service, mail_pb2.WAIT_FOR_RELAY)
    assert {answer.mail.state for answer in answers} == {mail_pb2.Mail.STATE_RELAYED}
    await service.wait_for_log("mail-settled", count=_CALLERS)
    assert {line["process"] for line in service.logged("mail-settled")} == {1, 2}
    said = await scrape(service)
    assert said["otpmail_mails_accepted_total"] == _CALLERS == len(relay.mails)
    assert said[f'otpmail_mails_sent_total{{relay="127.0.0.1:{relay.port}"}}'] == _CALLERS
    assert said[f'otpmail_connections_limit{{relay="127.0.0.1:{relay.port}"}}'] == 5  # WORKERS of both
    assert said[f'otpmail_relay_up{{relay="127.0.0.1:{relay.port}"}}'] == 1
    assert said["otpmail_processes"] == 2
    addresses = {str(line["address"]) for line in service.logged("listening")}
    assert addresses == {service.address}


async def test_all_processes_ask_the_same_callers(start: Callable[..., Any], tmp_path: Path) -> None:
    """Each process asks for a token, and takes a change of CALLERS_FILE by itself."""
    file, new = tmp_path / "callers.toml", tmp_path / "callers.new"
    tables = [f'[callers.{name}]\ntokens = ["{sha256(name.encode()).hexdigest()}"]\n' for name in ("one", "two")]
    file.write_text(tables[0])
    service, _ = await start(CALLERS_FILE=file)

    async def statuses(token: str) -> set[Any]:
        async def get(channel: grpc.aio.Channel, _: int) -> Any:
            stub: Any = mail_pb2_grpc.MailServiceStub(channel)
            try:
                await stub.GetMail(mail_pb2.GetMailRequest(id="0"), metadata=(("authorization", f"Bearer {token}"),))
            except grpc.aio.AioRpcError as error:
                return error.code()

        return set(await _by_many(service, get))

    known, unknown = {grpc.StatusCode.NOT_FOUND}, {grpc.StatusCode.UNAUTHENTICATED}
    assert (await statuses("one"), await statuses("two")) == (known, unknown)
    new.write_text(tables[1])
    new.replace(file)
    for process in (1, 2):
        await service.wait_for_log("reloaded", changed=["CALLERS_FILE"], process=process, timeout=_SECONDS)
    assert (await statuses("one"), await statuses("two")) == (unknown, known)


async def test_a_code_is_valid_once_over_all_processes(start: Callable[..., Any]) -> None:
    """A code that one process has issued is checked by any of them: valid for one of many calls at once."""
    service, _ = await start(OTP_RETURN_CODE=True)
    code = (await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))).otp_code

    async def check(channel: grpc.aio.Channel, _: int) -> Any:
        stub: Any = otp_pb2_grpc.OtpServiceStub(channel)
        return await stub.ValidateCode(otp_pb2.ValidateCodeRequest(email="ada@example.org", code=code))

    results = Counter(answer.result for answer in await _by_many(service, check))
    valid, gone = otp_pb2.ValidateCodeResponse.RESULT_VALID, otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
    assert results == {valid: 1, gone: _CALLERS - 1}
    checked = {name: count for name, count in (await scrape(service)).items() if "codes_checked" in name and count}
    assert checked == {
        'otpmail_codes_checked_total{result="valid"}': 1,
        'otpmail_codes_checked_total{result="no_live_code"}': _CALLERS - 1,
    }


async def test_a_process_that_is_asked_to_end_does_so_in_order(start: Callable[..., Any]) -> None:
    """SIGTERM to one process lets its mails settle, and another takes its place; the others serve meanwhile."""
    service, relay = await start(Faults(auth=(), delay=0.02))
    await _send_by_many(service, mail_pb2.WAIT_FOR_QUEUE)
    os.kill(_pids(service)[1], signal.SIGTERM)
    ended = await service.wait_for_log("process-ended", timeout=_SECONDS)
    assert (ended["process"], ended["exit_code"], ended["level"]) == (1, 0, "warning")
    assert service.logged("stopped")[0]["process"] == 1
    await service.wait_for_log("listening", count=3, timeout=_SECONDS)
    assert (await service.mail.SendMail(request("last", wait_for=mail_pb2.WAIT_FOR_RELAY))).mail.id
    assert await service.stop() == 0
    assert not Copies({f"p{number}": "" for number in range(_CALLERS)}, relay.mails).lost


async def test_a_killed_process_loses_nothing(start: Callable[..., Any]) -> None:
    """Kill -9 of one process under callers: it is started again, and each promised mail arrives."""
    service, relay = await start()
    callers, stop = Callers(at_once=16), asyncio.Event()
    running = asyncio.create_task(callers.run(service, stop=stop))
    for rounds in range(2):
        await callers.wait_for_promises(len(callers.promised) + 100)
        await service.wait_for_log("mail-settled", timeout=_SECONDS)
        busy = int(str(service.logged("mail-settled")[-1]["process"]))  # the callers have one connection
        os.kill(_pids(service)[busy], signal.SIGKILL)
        await service.wait_for_log("process-ended", count=rounds + 1, timeout=_SECONDS)
        await service.wait_for_log("listening", count=rounds + 3, timeout=_SECONDS)
    stop.set()
    await running
    assert {line["signal"] for line in service.logged("process-ended")} == {"SIGKILL"}
    copies = Copies(callers.promised, relay.mails)
    while copies.lost:  # taken over once the lease of the killed process has ended
        await relay.wait_for_mails(len(relay.mails) + 1, timeout=_SECONDS)
        copies = Copies(callers.promised, relay.mails)
    assert len(copies.promised) >= 200
    assert await service.stop() == 0


async def test_a_stop_drains_all_processes(start: Callable[..., Any]) -> None:
    """SIGTERM lets the mails of all processes settle, and the service ends with 0."""
    service, relay = await start(Faults(auth=(), delay=0.02))
    answers = await _send_by_many(service, mail_pb2.WAIT_FOR_QUEUE)
    assert len(answers) == _CALLERS
    assert await service.stop() == 0
    assert not Copies({f"p{number}": "" for number in range(_CALLERS)}, relay.mails).lost
    assert [line.get("process") for line in service.logged("stopped")][-1] is None  # the supervisor's is the last
    assert {line["process"] for line in service.logged("stopped")[:-1]} == {1, 2}


async def test_callers_during_a_stop_of_all_processes(start: Callable[..., Any]) -> None:
    """Each of 64 callers that call while all processes stop has an OK, or UNAVAILABLE that says when to call again."""
    service, relay = await start(Faults(auth=(), delay=0.005))
    callers = LastCalls()
    running = asyncio.create_task(callers.run(service, connections=64))
    await callers.wait_for_promises(200)
    assert await service.stop() == 0
    await running
    assert callers.unanswered() == []
    assert len(callers.refusals) == 64
    assert callers.promised <= set(names(relay.mails))


async def test_a_signal_to_all_processes_at_once_stops_them_in_order(start: Callable[..., Any]) -> None:
    """SIGTERM to each process, as systemd sends it, counts once: mails settle, and the service ends with 0."""
    service, relay = await start(Faults(auth=(), delay=0.02))
    await _send_by_many(service, mail_pb2.WAIT_FOR_QUEUE)
    for pid in (*_pids(service).values(), service.pid):
        os.kill(pid, signal.SIGTERM)
    assert await service.wait_exited() == 0
    assert service.logged("stopped-at-once") == []
    assert not Copies({f"p{number}": "" for number in range(_CALLERS)}, relay.mails).lost


async def test_a_second_signal_ends_all_at_once(start: Callable[..., Any]) -> None:
    """A second SIGTERM ends every process, each with a line about what it leaves, and the exit code is 143."""
    service, relay = await start()
    relay.faults = replace(relay.faults, silent_at="MAIL")
    await _send_by_many(service, mail_pb2.WAIT_FOR_QUEUE)
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping", count=2, timeout=_SECONDS)
    service.send(signal.SIGTERM)
    assert await service.wait_exited() == 143
    ended = service.logged("stopped-at-once")
    assert {line["process"] for line in ended} == {1, 2}
    assert sum(int(str(line["unsettled"])) for line in ended) == _CALLERS
    await _gone(list(_pids(service).values()))


async def test_processes_end_with_their_supervisor(start: Callable[..., Any]) -> None:
    """A supervisor that is killed takes its processes with it, so that the next one finds the port free."""
    service, _ = await start()
    pids, address = list(_pids(service).values()), service.address
    await service.kill()
    await _gone(pids)
    async with Service(PORT=address.rpartition(":")[2], EMAIL_HOST="127.0.0.1") as next_one:
        assert next_one.address == address


async def test_a_hangup_reloads_all_processes(start: Callable[..., Any]) -> None:
    """SIGHUP reloads in each process, and each says so; no part of a limit counts as a change."""
    service, _ = await start(WORKERS=5, QUEUE_SIZE=1001)
    service.send(signal.SIGHUP)
    await service.wait_for_log("reloaded", count=2, timeout=_SECONDS)
    assert {line["process"] for line in service.logged("reloaded")} == {1, 2}
    assert {line["message"] for line in service.logged("reloaded")} == {"reloaded: nothing has changed"}


async def test_no_other_server_gets_the_port(start: Callable[..., Any]) -> None:
    """A gRPC server that would share the port is refused it, and so is a second otpmail, with one line."""
    service, _ = await start()
    port = int(service.address.rpartition(":")[2])
    stranger = grpc.aio.server(options=server_options(most_octets=1 << 20, connections=10, shares_port=True))
    with pytest.raises(RuntimeError):
        stranger.add_insecure_port(service.address)
    settings: dict[str, Any] = {"PROCESSES": 2, "OTP_KEYS": KEYS, "EMAIL_HOST": "127.0.0.1"}
    (line,) = await Service(PORT=port, STORE_URL="redis://127.0.0.1", **settings).refused(2)
    assert line.startswith(f"PORT: can't listen on 127.0.0.1:{port}; another server is there")


async def test_a_store_that_cannot_be_opened_is_reported_once() -> None:
    """Without a store the service ends with 5, and one line says why: the processes do not all try."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}"
        lines = await Service(PROCESSES=2, STORE_URL=url, OTP_KEYS=KEYS, EMAIL_HOST="127.0.0.1").refused(5)
    assert sum("STORE_URL: " in line for line in lines) == 1
