"""The real mail servers, started once for the run; skipped where they are missing, but not in CI."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, cast

import pytest

import pipe_ends
from integration.exim import Exim
from integration.postfix import Postfix
from integration.servers import CertificateFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.servers import MailServer
    from relay import Certificates


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
