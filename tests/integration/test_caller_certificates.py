"""Certificates of callers: the names that tell each caller, and certificates that get no connection."""

from __future__ import annotations

import ipaddress
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from calls import scrape
from integration.callers import DENIED, UNKNOWN, Tls, hello, open_channel, write
from otpmail.v1 import mail_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from service import Service

_FILE = """
[callers.by-host]
sans = ["Host.example"]
methods = ["GetMail"]
[callers.by-uri]
sans = ["spiffe://example.org/ns/shop"]
methods = ["GetMail"]
[callers.by-email]
sans = ["ops@example.org"]
methods = ["GetMail"]
[callers.by-ip]
sans = ["192.0.2.7", "2001:DB8::7"]
methods = ["GetMail"]
[callers.by-subject]
subjects = ["CN=shop,O=Example"]
methods = ["GetMail"]
"""
_SHOP = x509.Name(
    [
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop"),
    ]
)
_OTHER = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
_PEM = serialization.Encoding.PEM


class Issued:
    """A certificate with any subject and other names, of an authority or signed by itself, valid from and to a day."""

    def __init__(
        self,
        authority: trustme.CA | None,
        *names: x509.GeneralName,
        subject: x509.Name = _OTHER,
        days: tuple[int, int] = (-1, 1),
        octets: bytes = b"",
    ) -> None:
        """Make the certificate; `days` are counted from today. `octets` are those of its other names, as they are."""
        key, today = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        issuer, signer = subject, key
        if authority is not None:
            issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
            loaded = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            signer = loaded
        first, last = (today + timedelta(days=day) for day in days)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), first, last)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if octets:
            others = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, octets)
            builder = builder.add_extension(others, critical=False)
        self.chain = builder.sign(signer, hashes.SHA256()).public_bytes(_PEM)
        self.key = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def credentials(self, ca: Path) -> grpc.ChannelCredentials:
        """Return the credentials of a client that shows it."""
        return grpc.ssl_channel_credentials(ca.read_bytes(), self.key, self.chain)


@pytest.fixture
async def service(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> Service:
    """Start a service that knows callers by their certificates."""
    file = tmp_path / "callers.toml"
    write(file, _FILE)
    return await serve(CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, **tls.settings)


async def _refusal(service: Service, credentials: grpc.ChannelCredentials) -> tuple[grpc.StatusCode, str]:
    """Return how a mail is refused, which no caller here may send."""
    async with open_channel(service, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await mail_pb2_grpc.MailServiceStub(channel).SendMail(hello(), timeout=30)
        return caught.value.code(), caught.value.details() or ""


async def test_each_kind_of_name(service: Service, tls: Tls) -> None:
    """A caller is known by a host name, a URI, an e-mail or an IP address, or else by its subject."""
    dns, uri = x509.DNSName, x509.UniformResourceIdentifier
    names: dict[str, Sequence[x509.GeneralName]] = {
        "by-host": [dns("a.example"), dns("HOST.Example")],
        "by-uri": [uri("spiffe://example.org/ns/shop"), dns("unknown.example")],
        "by-email": [x509.RFC822Name("ops@example.org")],
        "by-ip": [x509.IPAddress(ipaddress.ip_address("2001:db8::7"))],
    }
    for caller, others in names.items():
        refusal = await _refusal(service, Issued(tls.authority, *others).credentials(tls.ca))
        assert refusal[0] is DENIED, refusal
        assert refusal[1].startswith(f"method: {caller} may not call")
    refusal = await _refusal(service, Issued(tls.authority, subject=_SHOP).credentials(tls.ca))
    assert refusal[1].startswith("method: by-subject may not call")
    unknown = Issued(tls.authority, dns("other.example"), uri("https://host.example"))
    refusal = await _refusal(service, unknown.credentials(tls.ca))
    words = "no caller has this certificate: uri:https://host.example, dns:other.example, subject:CN=other"
    assert refusal == (UNKNOWN, words)


async def test_a_name_with_a_nul(service: Service, tls: Tls) -> None:
    """A name with a NUL, which many programs read up to there, is no caller's, and nor are others beside it."""
    dns = x509.DNSName
    for name in (
        dns("host.example\0.evil.example"),
        x509.UniformResourceIdentifier("spiffe://example.org/ns/shop\0/x"),
        x509.RFC822Name("ops@example.org\0.evil.example"),
        dns("\0host.example"),
        dns(f"host.example\0{'.evil' * 60}"),
    ):
        refusal = await _refusal(service, Issued(tls.authority, name).credentials(tls.ca))
        assert refusal == (UNKNOWN, "a name in this certificate holds a NUL"), name
        refusal = await _refusal(service, Issued(tls.authority, dns("host.example"), name).credentials(tls.ca))
        assert refusal[0] is UNKNOWN, name
    shop = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop\0")])
    refusal = await _refusal(service, Issued(tls.authority, subject=shop).credentials(tls.ca))
    assert refusal == (UNKNOWN, "no caller has this certificate: subject:CN=shop\\00")


async def test_certificates_that_are_not_good(service: Service, tls: Tls) -> None:
    """One that has expired, is not valid yet, or is not of the authority gets no connection, whatever its names."""
    name = x509.DNSName("host.example")
    for issued in (
        Issued(tls.authority, name, days=(-9, -2)),
        Issued(tls.authority, name, days=(2, 9)),
        Issued(trustme.CA(), name),
        Issued(None, name),
    ):
        refusal = await _refusal(service, issued.credentials(tls.ca))
        assert refusal[0] is grpc.StatusCode.UNAVAILABLE, refusal
    good = await _refusal(service, Issued(tls.authority, name).credentials(tls.ca))
    assert good[0] is DENIED


async def test_a_certificate_of_the_service_that_expires(serve: Callable[..., Awaitable[Service]], tls: Tls) -> None:
    """The log warns of an expired certificate at the start and at SIGHUP, and the metrics say when each expires."""
    metric = "otpmail_tls_certificate_not_after_timestamp_seconds"
    ends = datetime(2026, 1, 1, tzinfo=UTC)
    tls.renew(ends)
    service = await serve(HTTP_PORT=0, **tls.settings)
    warning: dict[str, Any] = {"level": "warning", "setting": "TLS_CERT_FILE", "not_after": "2026-01-01T00:00:00+00:00"}
    line = await service.wait_for_log("certificate-doubtful", **warning)
    text = "the certificate expired on 2026-01-01 00:00:00 UTC; callers refuse it, so renew it"
    assert line["message"] == f"TLS_CERT_FILE: {text}"
    assert (await scrape(service))[metric] == ends.timestamp()
    service.send(signal.SIGHUP)
    await service.wait_for_log("certificate-doubtful", count=2, **warning)
    tls.renew(later := datetime(2037, 1, 1, tzinfo=UTC))
    await service.wait_for_log("reloaded", changed=["TLS_CERT_FILE"])
    assert (await scrape(service))[metric] == later.timestamp()
    assert len(service.logged("certificate-doubtful")) == 2
