"""Callers over HTTP: tokens, TLS and certificates, which are those of gRPC, and what strangers get."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import trustme
from cryptography import x509
from cryptography.x509 import NameOID

from http1 import GET_MAIL, JSON, SEND_CODE, SEND_MAIL, converse, request, url_of
from integration.callers import Tls, hello, open_channel, table, write
from integration.test_caller_certificates import Issued
from otpmail.v1 import mail_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from service import Service

ADA = b'{"email":"ada@example.org"}'
HELLO = b'{"to":["ada@example.org"],"text":"Hi"}'
_NAMES: dict[str, tuple[list[tuple[x509.ObjectIdentifier, str]], list[x509.GeneralName]]] = {
    "plain": ([(NameOID.COMMON_NAME, "other")], []),
    "many": (
        [
            (NameOID.COUNTRY_NAME, "DE"),
            (NameOID.STATE_OR_PROVINCE_NAME, "Berlin"),
            (NameOID.LOCALITY_NAME, "Berlin"),
            (NameOID.ORGANIZATION_NAME, "Example, Inc."),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "Mail"),
            (NameOID.COMMON_NAME, 'a+b "c" <d>;e\\f#'),
        ],
        [],
    ),
    "letters": ([(NameOID.COMMON_NAME, "Jürgen 世界")], []),
    "blanks": ([(NameOID.COMMON_NAME, " # a ")], []),
    "email": ([(NameOID.EMAIL_ADDRESS, "ops@example.org"), (NameOID.COMMON_NAME, "x")], []),
    "dc": ([(NameOID.DOMAIN_COMPONENT, "example"), (NameOID.USER_ID, "u1"), (NameOID.SERIAL_NUMBER, "7")], []),
    "set": ([(x509.ObjectIdentifier("1.2.3.4.5"), "odd"), (NameOID.COMMON_NAME, "x")], []),
    "rare": ([(NameOID.TITLE, "t"), (NameOID.GIVEN_NAME, "g"), (NameOID.SURNAME, "s"), (NameOID.PSEUDONYM, "p")], []),
    "others": (
        [(NameOID.COMMON_NAME, "x")],
        [
            x509.DNSName("Host.example"),
            x509.DNSName("*.example.org"),
            x509.UniformResourceIdentifier("spiffe://example.org/ns/shop"),
            x509.RFC822Name("ops@example.org"),
            x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
            x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
            x509.IPAddress(ipaddress.ip_address("::ffff:192.0.2.7")),
            x509.IPAddress(ipaddress.ip_address("::192.0.2.7")),
        ],
    ),
}


def _der(tag: int, *parts: bytes) -> bytes:
    """Return a value of DER, of at most 255 octets."""
    content = b"".join(parts)
    return bytes((tag, len(content)) if len(content) < 128 else (tag, 0x81, len(content))) + content


_OTHERS_SHOP = _der(0x82, b"shop.example")
_UNREADABLE = {
    "letters that are no ASCII": _der(0x30, _OTHERS_SHOP, _der(0x82, b"b\xfccher.example")),
    "UTF-8": _der(0x30, _OTHERS_SHOP, _der(0x86, "spiffe://example.org/\xfc".encode())),
    "an address of X.400": _der(0x30, _der(0xA3, _der(0x30)), _OTHERS_SHOP),
    "a party of EDI": _der(0x30, _der(0xA5, _der(0xA1, _der(0x0C, b"x"))), _OTHERS_SHOP),
    "a network": _der(0x30, _OTHERS_SHOP, _der(0x87, bytes((192, 0, 2, 0, 255, 255, 255, 0)))),
    "five octets": _der(0x30, _OTHERS_SHOP, _der(0x87, b"12345")),
    "no names": b"0\x05abc",
    "too much": _der(0x30, _OTHERS_SHOP) + b"\0\0",
}


def _context(ca: Path, issued: Issued | None = None, folder: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if issued is not None and folder is not None:
        file = folder / "shown.pem"
        file.write_bytes(issued.key + issued.chain)
        context.load_cert_chain(file)
    return context


async def test_tokens(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """A token stands in Authorization, once, as over gRPC; a caller may call its methods and no others."""
    file = tmp_path / "callers.toml"
    write(file, table("shop", 'methods = ["SendCode"]'))
    service = await serve(HTTP_PORT=0, HTTP_HOST="0.0.0.0", CALLERS_FILE=file, OTP_RESEND_SECONDS=0)
    url = url_of(service).replace("0.0.0.0", "127.0.0.1")
    good = {"authorization": "Bearer shop-token", **JSON}
    assert (await request(url, SEND_CODE, ADA, good)).status == 200
    assert (await request(url, SEND_CODE, ADA, good | {"authorization": "bearer  shop-token "})).status == 200
    for given in (
        "Bearer nobody-token",
        "Basic c2hvcDp4",
        "shop-token",
        "Bearer",
        "Bearer shop-token, Bearer shop-token",
    ):
        answer = await request(url, SEND_CODE, ADA, good | {"authorization": given})
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
        assert answer.fields["www-authenticate"] == "Bearer"
        assert "shop-token" not in answer.text
    assert (await request(url, SEND_CODE, ADA, JSON)).status == 401
    denied = await request(url, SEND_MAIL, HELLO, good)
    assert (denied.status, denied.json["code"]) == (403, "permission_denied")
    twice = b"authorization: Bearer shop-token\r\n" * 2
    head = (
        b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n" % SEND_CODE.encode()
    )
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + twice + b"content-length: %d\r\n\r\n" % len(ADA) + ADA)
    assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    for path in ("/metrics", "/livez", "/readyz"):
        assert (await request(url, path)).status == 200


async def test_lines_of_mails_need_a_caller_too(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """A stream of lines that may not begin is answered by its status, and none of its mails is read."""
    file = tmp_path / "callers.toml"
    write(file, table("shop", 'methods = ["SendMails"]') + table("bank", 'methods = ["SendCode"]'))
    service = await serve(HTTP_PORT=0, CALLERS_FILE=file)
    lines = {"content-type": "application/jsonl"}
    body = b'{"requestId":"a","to":["ada@example.org"],"text":"Hi"}\n'
    path = "/otpmail.v1.MailService/SendMails"
    for token, status, code in (("", 401, "unauthenticated"), ("x", 401, "unauthenticated"), ("bank-token", 403, "")):
        headers = lines | ({"authorization": f"Bearer {token}"} if token else {})
        answer = await request(service, path, body, headers)
        assert (answer.status, answer.fields["content-type"]) == (status, "application/json")
        assert answer.json["code"] == (code or "permission_denied")
    answer = await request(service, path, body, lines | {"authorization": "Bearer shop-token"})
    assert (answer.status, answer.json["mail"]["state"]) == (200, "STATE_RELAYED")


async def _converse(url: str, octets: bytes) -> list[bytes]:
    """Send octets on one connection, and return the statuses of all answers until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(octets)
    async with asyncio.timeout(30):
        answers = await reader.read()
    writer.close()
    return [answer[:3] for answer in answers.split(b"HTTP/1.1 ")[1:]]


async def test_pipelined_requests_of_several_callers(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """Each request of a connection has its own token, trace and memory: one without a token is nobody's."""
    file = tmp_path / "callers.toml"
    write(file, table("shop"))
    url = url_of(await serve(HTTP_PORT=0, CALLERS_FILE=file, OTP_RESEND_SECONDS=0))
    kind = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(ADA)
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\n" % SEND_CODE.encode() + kind
    token = b"authorization: Bearer shop-token\r\n"
    good, bare = head + token + b"\r\n" + ADA, head + b"\r\n" + ADA
    last = head + b"connection: close\r\n\r\n" + ADA
    assert await _converse(url, good + bare + good + last) == [b"200", b"401", b"200", b"401"]


async def test_trailers_are_no_fields(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """A token, a Host or an Origin after the body counts for nothing (RFC 9110, 6.5.1), and trailers have bounds."""
    file = tmp_path / "callers.toml"
    write(file, table("shop"))
    url = url_of(await serve(HTTP_PORT=0, CALLERS_FILE=file, OTP_RESEND_SECONDS=0))
    token = b"authorization: Bearer shop-token\r\n"
    kind = b"content-type: application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
    post = b"POST %s HTTP/1.1\r\n" % SEND_CODE.encode()
    body = b"%x\r\n%s\r\n0\r\n" % (len(ADA), ADA)
    for fields, trailers, status in (
        (b"host: localhost\r\n", token, b"401"),
        (token, b"host: localhost\r\n", b"400"),
        (token + b"host: localhost\r\n", b"origin: https://evil.example\r\nhost: evil.example\r\n", b"200"),
    ):
        assert await _converse(url, post + fields + kind + b"\r\n" + body + trailers + b"\r\n") == [status]
    endless = post + token + b"host: localhost\r\n" + kind + b"\r\n" + body
    for trailers in (b"x: " + b"a" * (1 << 20), b"x: a\r\n" * 200 + b"\r\n"):
        with contextlib.suppress(ConnectionError):
            assert await _converse(url, endless + trailers) in ([], [b"431"])


async def test_strangers_get_the_probes_alone(serve: Callable[..., Awaitable[Service]]) -> None:
    """Off loopback nobody who is not asked calls a method, also where gRPC allows it."""
    service = await serve(HTTP_PORT=0, HTTP_HOST="0.0.0.0", ALLOW_ANONYMOUS="true")
    url = url_of(service).replace("0.0.0.0", "127.0.0.1")
    for path in (SEND_CODE, SEND_MAIL, "/", "/inbox", "/openapi.json"):
        answer = await request(url, path, ADA, JSON)
        assert (answer.status, "CALLERS_FILE" in answer.text) == (404, True)
    for path in ("/metrics", "/livez", "/readyz"):
        assert (await request(url, path)).status == 200


async def test_tls(serve: Callable[..., Awaitable[Service]], tls: Tls) -> None:
    """TLS_CERT_FILE holds for HTTP too. A new certificate is for new connections, and none is lost meanwhile."""
    service = await serve(HTTP_PORT=0, **tls.settings)
    url = url_of(service)
    assert url.startswith("https://")
    address = url.removeprefix("https://")
    first = await asyncio.to_thread(tls.serial_at, address)
    assert (await request(url, SEND_CODE, ADA, JSON, tls=_context(tls.ca))).status == 200
    assert (await converse(service, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")) == b""
    stop = asyncio.Event()

    async def ask() -> int:
        count = 0
        while not stop.is_set():
            assert (await request(url, "/livez", tls=_context(tls.ca))).status == 200
            count += 1
        return count

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    for count in range(1, 4):
        tls.renew()
        await service.wait_for_log("reloaded", count=count, changed=["TLS_CERT_FILE"])
    stop.set()
    assert min(await asyncio.gather(*asking)) > 0
    assert await asyncio.to_thread(tls.serial_at, address) != first


@pytest.mark.parametrize("kind", _NAMES)
async def test_the_names_in_a_certificate_are_those_of_grpc(
    kind: str, serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path
) -> None:
    """Both doors read the same names in a certificate, so that CALLERS_FILE holds for both."""
    file = tmp_path / "callers.toml"
    write(file, '[callers.one]\nsans = ["unknown.example"]\n')
    service = await serve(
        HTTP_PORT=0, CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, OTP_RESEND_SECONDS=0, **tls.settings
    )
    subject, names = _NAMES[kind]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    issued = Issued(tls.authority, *names, subject=name)
    async with open_channel(service, issued.credentials(tls.ca)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await mail_pb2_grpc.MailServiceStub(channel).SendMail(hello(), timeout=30)
    answer = await request(url_of(service), SEND_MAIL, HELLO, JSON, tls=_context(tls.ca, issued, tmp_path))
    assert (answer.status, answer.json["message"]) == (401, caught.value.details())


async def test_a_name_with_a_nul(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """A certificate with a NUL in a name is no caller's over HTTP either, whatever other names it has."""
    file = tmp_path / "callers.toml"
    write(file, '[callers.shop]\nsans = ["shop.example"]\n')
    service = await serve(
        HTTP_PORT=0, CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, OTP_RESEND_SECONDS=0, **tls.settings
    )
    shop = x509.DNSName("shop.example")
    context = _context(tls.ca, Issued(tls.authority, shop), tmp_path)
    assert (await request(url_of(service), SEND_CODE, ADA, JSON, tls=context)).status == 200
    for name in (
        x509.DNSName("shop.example\0y"),
        x509.DNSName("\0shop.example"),
        x509.UniformResourceIdentifier("spiffe://example.org\0/x"),
        x509.RFC822Name("ops@example.org\0.evil.example"),
    ):
        for names in ([name], [shop, name], [name, shop]):
            context = _context(tls.ca, Issued(tls.authority, *names), tmp_path)
            answer = await request(url_of(service), SEND_CODE, ADA, JSON, tls=context)
            words = "a name in this certificate holds a NUL"
            assert (answer.status, answer.json["message"]) == (401, words), names


async def test_addresses_count_however_they_are_written(
    serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path
) -> None:
    """A caller is known by an IPv6 address in its certificate over both doors, also one that holds an IPv4 address."""
    file = tmp_path / "callers.toml"
    write(file, '[callers.shop]\nsans = ["::ffff:192.0.2.7"]\nmethods = ["GetMail"]\n')
    service = await serve(HTTP_PORT=0, CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, **tls.settings)
    issued = Issued(tls.authority, x509.IPAddress(ipaddress.ip_address("::ffff:c000:207")))
    async with open_channel(service, issued.credentials(tls.ca)) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="method: shop may not call"):
            await mail_pb2_grpc.MailServiceStub(channel).SendMail(hello(), timeout=30)
    answer = await request(url_of(service), SEND_MAIL, HELLO, JSON, tls=_context(tls.ca, issued, tmp_path))
    assert (answer.status, answer.json["message"][:28]) == (403, "method: shop may not call ot")


async def test_names_that_can_not_be_read(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """A certificate counts with all of its names or not at all: no door takes it by those that it can read."""
    file = tmp_path / "callers.toml"
    write(file, '[callers.shop]\nsans = ["shop.example"]\nsubjects = ["CN=other"]\n')
    service = await serve(HTTP_PORT=0, CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, **tls.settings)
    words = "the names in this certificate can't be read"
    for kind, octets in _UNREADABLE.items():
        issued = Issued(tls.authority, octets=octets)
        async with open_channel(service, issued.credentials(tls.ca)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await mail_pb2_grpc.MailServiceStub(channel).SendMail(hello(), timeout=30)
        refusal = caught.value.code(), caught.value.details()
        has_connection = refusal[0] is not grpc.StatusCode.UNAVAILABLE  # gRPC refuses some itself
        assert not has_connection or refusal == (grpc.StatusCode.UNAUTHENTICATED, words), kind
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # uvloop refuses some itself, and so does the client
            context = _context(tls.ca, issued, tmp_path)
            answer = await request(url_of(service), SEND_MAIL, HELLO, JSON, tls=context)
            assert (answer.status, answer.json["message"]) == (401, words), kind


async def test_only_certificates_count(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """Without CALLERS_FILE no token counts, so that a refusal asks for none."""
    service = await serve(HTTP_PORT=0, TLS_CLIENT_CA_FILE=tls.ca, **tls.settings)
    nul = _context(tls.ca, Issued(tls.authority, x509.DNSName("a\0b")), tmp_path)
    for context in (_context(tls.ca), nul):
        for path, kind in (
            (SEND_CODE, "application/json"),
            ("/otpmail.v1.MailService/SendMails", "application/jsonl"),
        ):
            answer = await request(url_of(service), path, ADA, {"content-type": kind}, tls=context)
            assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
            assert "www-authenticate" not in answer.fields


async def test_certificates(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """A caller is known by its certificate. Without one it gets the probes alone, with a bad one nothing."""
    file = tmp_path / "callers.toml"
    write(file, f'[callers.shop]\nsans = ["shop.example"]\nmethods = ["SendCode"]\n{table("token")}\n[anonymous]\n')
    service = await serve(
        HTTP_PORT=0, CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, OTP_RESEND_SECONDS=0, **tls.settings
    )
    url = url_of(service)
    shop = Issued(tls.authority, x509.DNSName("shop.example"))
    context = _context(tls.ca, shop, tmp_path)
    assert (await request(url, SEND_CODE, ADA, JSON, tls=context)).status == 200
    assert (await request(url, GET_MAIL, b'{"id":"x"}', JSON, tls=context)).status == 403
    bare = _context(tls.ca)
    token: dict[str, Any] = {"authorization": "Bearer token-token"}
    refused: Sequence[dict[str, Any]] = ({}, token)
    for more in refused:
        answer = await request(url, SEND_CODE, ADA, JSON | more, tls=bare)
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
    assert (await request(url, SEND_CODE, ADA, JSON | token, tls=context)).status == 200
    assert (await request(url, "/livez", tls=bare)).status == 200
    for issued in (Issued(trustme.CA(), x509.DNSName("shop.example")), Issued(tls.authority, days=(-9, -2))):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await request(url, "/livez", tls=_context(tls.ca, issued, tmp_path))
