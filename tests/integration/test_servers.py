"""The real servers behave as the other tests expect, seen by aiosmtplib, without our service."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, cast
from uuid import uuid4

import aiosmtplib
import pytest

from integration.exim import Exim
from integration.postfix import Postfix
from integration.servers import DOMAIN, HOST, LATER, MAX_MAIL, PASSWORD, UNKNOWN, USER, MailServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from integration.servers import CertificateFiles
    from relay import Certificates

Security = Literal["starttls", "tls"]
Method = Literal["plain", "login", "crammd5"]

_SENDER = f"service@{DOMAIN}"
_HEADER = (
    b"From: service@example.org\r\nSubject: test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
)
_ANNOUNCED = {"pipelining", "chunking", "smtputf8", "8bitmime", "size", "auth"}


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> MailServer:
    """Give the test each of the servers."""
    return cast("MailServer", request.getfixturevalue(request.param))


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("method", ["plain", "login", "crammd5"])
async def test_signs_in(server: MailServer, certificates: Certificates, security: Security, method: Method) -> None:
    """The user signs in by every method, over STARTTLS and over implicit TLS, with a certificate that checks out."""
    async with _connected(server, certificates, security) as client:
        response = await getattr(client, f"auth_{method}")(USER, PASSWORD)
        assert response.code == 235


async def test_refuses_a_wrong_password(server: MailServer, certificates: Certificates) -> None:
    """A wrong password is rejected with 5xx."""
    async with _connected(server, certificates, "tls") as client:
        with pytest.raises(aiosmtplib.SMTPAuthenticationError) as refused:
            await client.auth_plain(USER, "wrong")
        assert refused.value.code == 535


async def test_takes_no_mail_before_signing_in(server: MailServer, certificates: Certificates) -> None:
    """A client that has not signed in is rejected, so a test that delivers has signed in."""
    async with _connected(server, certificates, "tls") as client:
        await client.mail(_SENDER)
        with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
            await client.rcpt(_address())
        assert 500 <= refused.value.code < 600


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_announces_what_we_build_on(server: MailServer, certificates: Certificates, security: Security) -> None:
    """Both servers announce the extensions that decide how we send, and the three ways to sign in."""
    async with _connected(server, certificates, security) as client:
        assert set(client.esmtp_extensions) >= _ANNOUNCED
        assert set(client.esmtp_extensions["auth"].split()) == {"PLAIN", "LOGIN", "CRAM-MD5"}
        assert client.esmtp_extensions["size"] == str(MAX_MAIL)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_delivers_the_same_bytes(server: MailServer, certificates: Certificates, security: Security) -> None:
    """A body of UTF-8 and of lines of dots is delivered unchanged, once."""
    body = "Grüße, 世界 👋\r\n.\r\n..\r\n.leading\r\n\r\n....\r\nend\r\n".encode()
    recipient = _address()
    async with _signed_in(server, certificates, security) as client:
        await client.sendmail(_SENDER, [recipient], _HEADER + b"\r\n" + body, mail_options=["BODY=8BITMIME"])
    (mail,) = await server.mails(recipient, 1)
    assert mail.partition(b"\n\n")[2] == body.replace(b"\r\n", b"\n")


async def test_delivers_each_recipient_a_copy(server: MailServer, certificates: Certificates) -> None:
    """One mail to several is delivered to each of them under their own address, SMTPUTF8 ones included."""
    recipients = [_address(), _address(), f"пользователь-{uuid4().hex}@{DOMAIN}"]
    async with _signed_in(server, certificates, "tls") as client:
        await client.sendmail(_SENDER, recipients, _HEADER + b"\r\nhello\r\n", mail_options=["SMTPUTF8"])
    for recipient in recipients:
        assert len(await server.mails(recipient, 1)) == 1


async def test_delivers_what_came_by_bdat(server: MailServer, certificates: Certificates) -> None:
    """A mail in one BDAT chunk, with no dots stuffed, is delivered unchanged."""
    recipient = _address()
    code = await asyncio.to_thread(
        _send_by_bdat, server, certificates.client_context(), recipient, _HEADER + b"\r\n.\r\nhello\r\n"
    )
    assert code == 250
    (mail,) = await server.mails(recipient, 1)
    assert mail.partition(b"\n\n")[2] == b".\nhello\n"


async def test_takes_a_mail_of_50_megabytes(server: MailServer, certificates: Certificates) -> None:
    """A mail as big as a caller may send is delivered whole."""
    recipient = _address()
    count = (50 << 20) // 72
    mail = _HEADER + b"\r\n" + (b"x" * 70 + b"\r\n") * count
    code = await asyncio.to_thread(_send_by_bdat, server, certificates.client_context(), recipient, mail)
    assert code == 250
    (delivered,) = await server.mails(recipient, 1)
    assert delivered.partition(b"\n\n")[2] == (b"x" * 70 + b"\n") * count


@pytest.mark.parametrize(("recipient", "code"), [(UNKNOWN, 550), (LATER, 451)])
async def test_refuses_and_defers(server: MailServer, certificates: Certificates, recipient: str, code: int) -> None:
    """A mail to several is rejected for the unknown recipient, deferred for another, and delivered to the rest."""
    taken = _address()
    async with _signed_in(server, certificates, "tls") as client:
        refused, _ = await client.sendmail(_SENDER, [taken, recipient], _HEADER + b"\r\nhello\r\n")
    assert {address: response[0] for address, response in refused.items()} == {recipient: code}
    assert len(await server.mails(taken, 1)) == 1
    assert await server.mails(recipient, 0) == []


async def test_many_mails_on_one_connection(server: MailServer, certificates: Certificates) -> None:
    """No limit of the server slows down or closes a connection that carries many mails."""
    recipient = _address()
    async with _signed_in(server, certificates, "tls") as client:
        for _ in range(200):
            await client.sendmail(_SENDER, [recipient], _HEADER + b"\r\nhello\r\n")
    assert len(await server.mails(recipient, 200)) == 200


async def test_says_what_is_missing(server: MailServer) -> None:
    """Waiting for a mail that does not come fails with the server's log, not with a bare timeout."""
    with pytest.raises(TimeoutError, match=r"0 of 1 mails for nobody@example\.org in 0\.05 s\n(.|\n)*daemon started"):
        await server.mails(f"nobody@{DOMAIN}", 1, timeout=0.05)


@pytest.mark.parametrize("kind", ["postfix", "exim"])
async def test_instances_are_private(
    request: pytest.FixtureRequest, kind: str, certificates: Certificates, certificate_files: CertificateFiles
) -> None:
    """A second instance runs beside the first with its own settings, keeps its ports, and stops alone."""
    first = cast("MailServer", request.getfixturevalue(kind))
    settings = {Postfix: {"smtpd_discard_ehlo_keywords": "chunking"}, Exim: {"chunking_advertise_hosts": ""}}
    second = type(first)(certificate_files.cert_file, certificate_files.key_file, settings[type(first)])
    recipient = _address()
    with second:
        ports = second.port, second.tls_port
        await asyncio.to_thread(second.restart)
        assert ports == (second.port, second.tls_port)
        async with _signed_in(second, certificates, "tls") as client:
            assert "chunking" not in client.esmtp_extensions
            await client.sendmail(_SENDER, [recipient], _HEADER + b"\r\nhello\r\n")
        assert len(await second.mails(recipient, 1)) == 1
    with socket.socket() as gone:
        assert gone.connect_ex((HOST, second.tls_port)) != 0
    assert await first.mails(recipient, 0) == []
    async with _signed_in(first, certificates, "tls") as client:
        assert "chunking" in client.esmtp_extensions


def test_keeps_its_port(server: MailServer) -> None:
    """No other process can take a server's port, even while it is down: the test has reserved it."""
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind((HOST, server.port))


def test_says_its_version(server: MailServer) -> None:
    """The version is that of the installed program, for reports."""
    assert server.version.partition(".")[0] in {"3", "4"}


def _address() -> str:
    """Return an address that no other test mails to."""
    return f"{uuid4().hex}@{DOMAIN}"


@asynccontextmanager
async def _connected(
    server: MailServer, certificates: Certificates, security: Security
) -> AsyncIterator[aiosmtplib.SMTP]:
    client = aiosmtplib.SMTP(
        hostname=HOST,
        port=server.tls_port if security == "tls" else server.port,
        use_tls=security == "tls",
        start_tls=security == "starttls",
        tls_context=certificates.client_context(),
        timeout=30,
    )
    async with client:
        await client.ehlo()
        protocol = client.protocol
        assert protocol is not None
        yield client
    # aiosmtplib does not wait for the transport to close, and the loop would be closed before it.
    async with asyncio.timeout(20):
        while protocol.transport is not None:  # noqa: ASYNC110 -- aiosmtplib has no event for it
            await asyncio.sleep(0)


@asynccontextmanager
async def _signed_in(
    server: MailServer, certificates: Certificates, security: Security
) -> AsyncIterator[aiosmtplib.SMTP]:
    async with _connected(server, certificates, security) as client:
        await client.auth_plain(USER, PASSWORD)
        yield client


def _send_by_bdat(server: MailServer, context: ssl.SSLContext, recipient: str, mail: bytes) -> int:
    """Send a mail by hand, since aiosmtplib has no BDAT; returns the code of its reply."""
    with smtplib.SMTP_SSL(HOST, server.tls_port, context=context, timeout=30) as client:
        client.login(USER, PASSWORD)
        client.mail(_SENDER)
        client.rcpt(recipient)
        client.send(b"BDAT %d LAST\r\n%b" % (len(mail), mail))
        return client.getreply()[0]
