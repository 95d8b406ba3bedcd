"""The certificates of a test run: what the relay shows, and what a client trusts."""

from __future__ import annotations

import ssl
import warnings
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"


class Certificates:
    """A certificate authority of the test run, and the server certificates it signed for localhost and 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        """Write the authority's certificate to `ca_file` in the directory."""
        self.authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self._right = self.authority.issue_cert("localhost", HOST)
        self._wrong = self.authority.issue_cert("relay.invalid")
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}

    def server_context(self, *, wrong_name: bool = False, tls_1_1: bool = False) -> ssl.SSLContext:
        """Return a server's context; with `tls_1_1` one that speaks TLS 1.1 with clients that allow it."""
        key = (wrong_name, tls_1_1)
        if key not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            (self._wrong if wrong_name else self._right).configure_cert(context)
            if tls_1_1:
                self._allow_only_tls_1_1(context)
            self._contexts[key] = context
        return self._contexts[key]

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority and checks names."""
        return ssl.create_default_context(cafile=self.ca_file)

    @staticmethod
    def _allow_only_tls_1_1(context: ssl.SSLContext) -> None:
        # OpenSSL 3 lets TLS 1.1 through at security level 0 only, and Python warns of what is wanted here.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
