"""Where the service listens, and what a container and its health checks see: `otpmail serve` as a process."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from commands import otpmail
from otpmail.rpc.health import LIVENESS
from otpmail.settings import is_present
from service import LogLine, Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay

_with_ipv6 = pytest.mark.skipif(not is_present("::1"), reason="this machine has no ::1")
_UNREACHABLE_PROXY = "http://127.0.0.1:1"


def _from_docker(proxy: str = _UNREACHABLE_PROXY) -> dict[str, str]:
    """The variables that Docker gives each container where its host has a proxy, in both cases."""
    return {name: proxy for lower in ("http_proxy", "https_proxy", "all_proxy") for name in (lower, lower.upper())}


def _addresses(line: LogLine) -> list[str]:
    addresses = line["addresses"]
    assert isinstance(addresses, list)
    return addresses


@_with_ipv6
@pytest.mark.service(HOST=None, wait=False)
async def test_the_default(service: Service) -> None:
    """Without HOST the service listens on 127.0.0.1 and ::1, with one port, also where PORT=0 chose it."""
    (line,) = service.logged("listening")
    first, second = _addresses(line)
    port = service.address.rpartition(":")[2]
    assert (service.address, first, second) == (first, f"127.0.0.1:{port}", f"[::1]:{port}")
    for address in (first, second):
        async with grpc.aio.insecure_channel(address, (("grpc.enable_http_proxy", 0),)) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=LIVENESS))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@_with_ipv6
@pytest.mark.parametrize("host", [None, "localhost", "127.0.0.1,::1"])
@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
async def test_another_server_on_one_of_the_addresses(host: str | None, taken: str) -> None:
    """A server on one of two loopbacks ends the start with one line that names it: no code is issued beside it."""
    with socket.create_server((taken, 0), family=socket.AF_INET6 if ":" in taken else socket.AF_INET) as other:
        port = other.getsockname()[1]
        (line,) = await Service(HOST=host, PORT=port).refused(2)
    shown = f"[{taken}]" if ":" in taken else taken
    assert line.startswith(f"PORT: can't listen on {shown}:{port}")
    assert "another server is there" in line


async def test_a_list_with_a_socket(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """A Unix socket beside TCP has SOCKET_MODE, is called first where it stands first, and is removed in the end."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    path = tmp_path / "s ?%20#é"
    async with Service(**settings, HOST=f"unix:{path}, 127.0.0.1", SOCKET_MODE="0620") as service:
        await service.wait_for_log("relay-up")
        assert service.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        (line,) = service.logged("listening")
        for address in _addresses(line):
            assert (await otpmail("health", "--server", address)).out.strip() == "SERVING"
        assert await service.stop() == 0
    assert not path.exists()


@_with_ipv6
@pytest.mark.service(HOST=None)
async def test_the_health_check_of_a_container(service: Service, tmp_path: Path) -> None:
    """HEALTHCHECK succeeds with the proxy variables that Docker gives to each container, also by PORT alone."""
    port = service.address.rpartition(":")[2]
    assert (await otpmail("health", here=tmp_path, PORT=port, **_from_docker())).code == 0
    for address in (f"127.0.0.1:{port}", f"[::1]:{port}", f"localhost:{port}"):
        ran = await otpmail("health", server=address, here=tmp_path, **_from_docker())
        assert (ran.code, ran.out.strip()) == (0, "SERVING")


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_liveness_does_not_follow_the_relay(service: Service) -> None:
    """While the relay is down the service is not ready, and `otpmail health liveness` says that it lives."""
    await service.wait_for_log("relay-down")
    assert (await otpmail("health", server=service.address)).code == 1
    ran = await otpmail("health", LIVENESS, server=service.address)
    assert (ran.code, ran.out.strip()) == (0, "SERVING")
