"""TLS on the port: a certificate that can be exchanged while the service runs, for connections from then on.

gRPC speaks TLS 1.2 and 1.3 alone. It asks a function of ours for a new certificate at each handshake.
"""

from collections.abc import Callable
from typing import Any

import grpc

from otpmail.api.access import Access
from otpmail.settings.certificates import CertificateFiles
from otpmail.settings.listen import UNIX


class ServerTls:
    """The certificate of the port, and the authorities of its callers' certificates."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files

    def __repr__(self) -> str:
        return f"<ServerTls{', of clients too' if self._files.authorities else ''}>"

    def renew(self, files: CertificateFiles) -> None:
        """Use these files for each handshake from now on. Open connections go on."""
        self._files = files

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one address: gRPC keeps the latest certificate for each address apart."""
        files = self._files
        fetch: Any = self._fetcher(files)  # the type stubs do not know that it may return None
        return grpc.dynamic_ssl_server_credentials(
            _configuration(files), fetch, require_client_authentication=files.authorities is not None
        )

    def _fetcher(self, given: CertificateFiles) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """Return what gRPC calls before each handshake, in a thread of its own: None keeps what was given last."""

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Return the certificate for the next handshake, None if it is that of the last one."""
            nonlocal given
            if given is self._files:
                return None
            given = self._files
            return _configuration(given)

        return fetch


def port_of(server: grpc.aio.Server, access: Access) -> Callable[[str], int]:
    """Return the function that binds an address: with TLS where it is set, and without it for a Unix socket."""
    if access.certificates is None:
        return server.add_insecure_port
    tls = ServerTls(access.certificates)
    access.follow(tls.renew)

    def add_port(address: str) -> int:
        """Bind an address, with TLS unless it is a Unix socket."""
        if address.startswith(UNIX):
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())

    return add_port


def _configuration(files: CertificateFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.key, files.chain)], files.authorities)
