"""Callers as tests of the whole make them: tables of CALLERS_FILE, tokens, certificates, and calls with these."""

from __future__ import annotations

import ssl
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime
    from pathlib import Path

    from relay import Certificates
    from service import Service

DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
RELAYED = mail_pb2.Mail.STATE_RELAYED


def write(file: Path, text: str) -> None:
    """Write a file in one step, so that no reader finds half of it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def table(name: str, *more: str) -> str:
    """Return the table of a caller, whose token is `NAME-token`."""
    digest = sha256(f"{name}-token".encode()).hexdigest()
    return "\n".join((f"[callers.{name}]", f'tokens = ["{digest}"]', *more, ""))


def as_caller(name: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with the token of `table`."""
    return (("authorization", f"Bearer {name}-token"),)


def hello(**fields: Any) -> mail_pb2.SendMailRequest:
    """Return a small mail with these fields too."""
    return mail_pb2.SendMailRequest(**{"to": ["ada@example.org"], "text": "Hello", **fields})


async def status_of(call: Awaitable[Any]) -> grpc.StatusCode:
    """Return the status of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


class Tls:
    """The files of a service with TLS on localhost, and the authority of its callers."""

    def __init__(self, certificates: Certificates, folder: Path) -> None:
        """Write a certificate to the folder."""
        self.authority = certificates.authority
        self.folder = folder
        self.cert, self.key, self.ca = folder / "cert.pem", folder / "key.pem", certificates.ca_file
        self.renew()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of TLS."""
        return {"TLS_CERT_FILE": self.cert, "TLS_KEY_FILE": self.key}

    def renew(self, not_after: datetime | None = None) -> None:
        """Write a new certificate with its key, which may expire then."""
        issued = self.authority.issue_cert("localhost", "127.0.0.1", not_after=not_after)
        write(self.key, issued.private_key_pem.bytes().decode())
        write(self.cert, "".join(pem.bytes().decode() for pem in issued.cert_chain_pems))

    def client(self, *names: str) -> grpc.ChannelCredentials:
        """Return credentials of a client, with a certificate for these names if there are any."""
        ca = self.ca.read_bytes()
        if not names:
            return grpc.ssl_channel_credentials(ca)
        issued = self.authority.issue_cert(*names)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (self.folder / "client.pem").write_bytes(issued.private_key_pem.bytes() + chain)
        return grpc.ssl_channel_credentials(ca, issued.private_key_pem.bytes(), chain)

    def serial_at(self, address: str) -> bytes:
        """Return the certificate that the service shows now."""
        host, _, port = address.rpartition(":")
        return ssl.get_server_certificate((host, int(port))).encode()


def open_channel(service: Service, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """Open a connection of its own to the service, over TLS."""
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(service.address, credentials, options)
