"""The certificates of a test run: what the relay shows, and what a client trusts or shows itself."""

from __future__ import annotations

import ssl
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

    from relay.faults import Kind

HOST = "127.0.0.1"


class Certificates:
    """A certificate authority of the test run, and the certificates it signed for localhost, 127.0.0.1 and ::1.

    `client_file` has the certificate of a client named client.test, with its key.
    """

    def __init__(self, directory: Path) -> None:
        """Write the authority's certificate to `ca_file` in the directory."""
        self.authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.self_signed_file = directory / "self-signed.pem"
        _write_self_signed(self.self_signed_file)
        self.client_file = directory / "client.pem"
        self.authority.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(str(self.client_file))
        names = ("localhost", HOST, "::1")
        now = datetime.now(UTC)
        self._issued = {
            "right": self.authority.issue_cert(*names),
            "wrong_name": self.authority.issue_cert("relay.invalid"),
            "expired": self.authority.issue_cert(
                *names, not_before=now - timedelta(days=9), not_after=now - timedelta(days=2)
            ),
        }
        self._contexts: dict[tuple[Kind, bool, bool], ssl.SSLContext] = {}

    def server_context(
        self, kind: Kind = "right", *, tls_1_1: bool = False, wants_certificate: bool = False
    ) -> ssl.SSLContext:
        """Return a server's context; with `tls_1_1` one that speaks TLS 1.1 with clients that allow it."""
        key = (kind, tls_1_1, wants_certificate)
        if key not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            if kind == "self_signed":
                context.load_cert_chain(self.self_signed_file)
            else:
                self._issued[kind].configure_cert(context)
            if tls_1_1:
                self._allow_only_tls_1_1(context)
            if wants_certificate:
                context.verify_mode = ssl.CERT_REQUIRED
                self.authority.configure_trust(context)
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


def _write_self_signed(file: Path) -> None:
    """Write a certificate for localhost that no authority signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
