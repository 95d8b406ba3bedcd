"""The real mail servers, started once for the run; skipped where they are missing, but not in CI."""

from __future__ import annotations

import fcntl
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import pytest

import pipe_ends
from guaranteed import redis_settings
from integration.callers import Tls
from integration.exim import Exim
from integration.postfix import Postfix
from integration.servers import CertificateFiles
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from integration.servers import MailServer
    from redis_server import RedisServer
    from relay import Certificates, Relay


@pytest.fixture(scope="session")
def certificate_files(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """Write a server's certificate, signed by the authority of the run, to files."""
    directory = tmp_path_factory.mktemp("server")
    issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
    files = CertificateFiles(certificates.ca_file, directory / "cert.pem", directory / "key.pem")
    files.cert_file.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    files.key_file.write_bytes(issued.private_key_pem.bytes())
    return files


@pytest.fixture(scope="session")
def postfix(certificate_files: CertificateFiles) -> Iterator[Postfix]:
    """Start Postfix. All tests share it, so each mails to an address of its own."""
    require(Postfix)
    with Postfix(certificate_files.cert_file, certificate_files.key_file) as server:
        yield server


@pytest.fixture(scope="session")
def exim(certificate_files: CertificateFiles) -> Iterator[Exim]:
    """Start Exim. All tests share it, so each mails to an address of its own."""
    require(Exim)
    with Exim(certificate_files.cert_file, certificate_files.key_file) as server:
        yield server


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> MailServer:
    """Give the test each of the servers."""
    return cast("MailServer", request.getfixturevalue(request.param))


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe that is full, so that the first write to it blocks."""
    with pipe_ends.opened() as (reading, writing):
        os.set_blocking(writing, False)
        size = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
        assert os.write(writing, b"." * size) == size
        os.set_blocking(writing, True)
        yield reading, writing


def require(server: type[MailServer]) -> None:
    """Skip where it cannot be started; fail in CI, where a skipped test would be an untested one."""
    missing = server.missing()
    if missing is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture
async def serve(relay: Relay, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a service with these settings, and return it once its relay is up."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Service:
            service = Service(
                **relay_settings(relay, certificates, tmp_path / "token") | {"LOG_MAILS": "off"} | settings
            )
            await stack.enter_async_context(service)
            await service.wait_for_log("relay-up")
            return service

        yield start


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path, redis: RedisServer) -> dict[str, Any]:
    """Return the settings of a replica on a Redis; those of one test have a namespace of their own."""
    settings = relay_settings(relay, certificates, tmp_path / "token") | redis_settings(redis)
    return settings | {"OTP_RETURN_CODE": True}


@pytest.fixture
def tls(certificates: Certificates, tmp_path: Path) -> Tls:
    """Write the files of TLS."""
    return Tls(certificates, tmp_path)
