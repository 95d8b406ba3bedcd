"""The tests of attacks say at once what to change where a foreign target can't be attacked."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from attacks import arrival, targets
from attacks.targets import Limits, System, through
from otpmail.v1 import otp_pb2
from ports import HOST, ReservedPort
from relay import Faults, Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ROOT = Path(__file__).parent.parent
_SEND_CODE = "/otpmail.v1.OtpService/SendCode"


def _system(address: str, relay: Relay | None = None) -> System:
    return System(addresses=[address], relay=relay, limits=Limits(), code_pattern=re.compile(r"\d{6}"))


async def _why_unusable(system: System, contract: str = "v1") -> str:
    async with through(contract, system) as target:
        with pytest.raises(arrival.Unusable) as caught:
            await arrival.wait_until_usable(target)
    return str(caught.value)


@asynccontextmanager
async def _server(*statuses: grpc.StatusCode) -> AsyncIterator[str]:
    """Answer the calls of SendCode with these statuses in turn, then with OK; yields the address."""
    left = list(statuses)

    async def send_code(_: object, context: Any) -> otp_pb2.SendCodeResponse:
        if left:
            await context.abort(left.pop(0), "the reason")
        return otp_pb2.SendCodeResponse()

    method = grpc.unary_unary_rpc_method_handler(
        send_code, otp_pb2.SendCodeRequest.FromString, otp_pb2.SendCodeResponse.SerializeToString
    )
    server = grpc.aio.server()
    service, _, name = _SEND_CODE[1:].rpartition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_nobody_listens() -> None:
    """A port that nobody listens on is named at once."""
    with ReservedPort() as held:
        address = f"{HOST}:{held.port}"
        assert (await _why_unusable(_system(address))).startswith(f"--target {address}: no service answers there (")


async def test_each_replica_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begins once each replica mails codes, and not once the first one does."""
    monkeypatch.setattr(arrival, "_POLL_SECONDS", 0.01)
    down = [grpc.StatusCode.UNAVAILABLE] * 3
    async with _server() as ready, _server(*down) as late:
        system = replace(_system(ready), addresses=[ready, late])
        async with through("v1", system) as target:
            await arrival.wait_until_usable(target)
            assert None not in [await target.send_code("ada@example.org") for _ in range(2)]


async def test_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error tells a server that speaks no gRPC, or wants TLS, from one that is not there."""
    monkeypatch.setattr(arrival, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        words = await _why_unusable(_system(address))
    assert words == (
        f"--target {address}: takes connections, but speaks no gRPC over plain text; "
        "if it wants TLS, set OTPMAIL_CA_FILE"
    )


async def test_a_refusal_says_what_to_set() -> None:
    """A refused call has its status, its words and what to set."""
    async with _server(grpc.StatusCode.UNAUTHENTICATED) as address:
        words = await _why_unusable(_system(address))
    assert words == (
        "the target refuses SendCode of --contract v1: UNAUTHENTICATED: the reason; "
        "set OTPMAIL_TOKEN to the token of a caller"
    )


async def test_another_contract() -> None:
    """A server that does not know the methods of the contract is asked for the other one."""
    async with _server() as address:
        words = await _why_unusable(_system(address), "original")
    assert words.endswith("it does not speak this contract; --contract takes v1 or original")


async def test_a_target_whose_relay_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is UNAVAILABLE for a while is waited for, and one that stays so is named with its last words."""
    monkeypatch.setattr(arrival, "_POLL_SECONDS", 0.01)
    async with _server(grpc.StatusCode.UNAVAILABLE) as address, through("v1", _system(address)) as target:
        await arrival.wait_until_usable(target)
    monkeypatch.setattr(arrival, "_START_SECONDS", 0.3)
    async with _server(*[grpc.StatusCode.UNAVAILABLE] * 1000) as address:
        words = await _why_unusable(_system(address))
    assert words == "the target mails no code, after 0.3 s: UNAVAILABLE: the reason"


async def test_mails_that_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error says that a target mails to another relay than that of the tests."""
    monkeypatch.setattr(targets, "_MAIL_SECONDS", 0.2)
    async with Relay(Faults(auth=())) as relay, _server() as address:
        words = await _why_unusable(_system(address, relay))
    assert words.endswith("none reaches --relay-listen; have it mail there")


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "nonsense"), "argument --target: 'nonsense' is not HOST:PORT, such as 127.0.0.1:40700"),
        (("--relay-listen", "127.0.0.1:2525"), "--relay-listen is about a foreign server; give --target HOST:PORT too"),
        (("--target", "a:1", "--relay-login", "u:p"), "--relay-login is for the relay of --relay-listen"),
        (("--target", "a:1", "--code-pattern", "("), "argument --code-pattern: '(' is no regular expression"),
        (("--target", "a:1", "--sends", "many"), "argument --sends: 'many' is no number above 0"),
        (("--target", "127.0.0.1:1"), "--target 127.0.0.1:1: no service answers there"),
    ],
)
async def test_a_mistake_in_the_options(arguments: tuple[str, ...], words: str) -> None:
    """A mistake ends the run with exit code 4 and names the option, without a traceback."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/attacks/test_guessing.py", *arguments),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert words in output.decode()
    assert "Traceback" not in output.decode()
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
