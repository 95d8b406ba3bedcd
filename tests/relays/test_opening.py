"""The first steps on a connection: the name in EHLO, HELO in its place, and TLS that fails."""

import socket
from typing import Any

import pytest

from otpmail.errors import ConnectFailed
from otpmail.relays.dial import SignedIn
from otpmail.relays.helo import address_literal
from otpmail.settings import is_present
from relay import HOST, Certificates, Faults, Relay
from relays.dials import dial_port, failing_handshake


async def _dial(relay: Relay, **values: str) -> SignedIn:
    return await dial_port(relay.port, **{"EMAIL_HOST": relay.host, "EMAIL_SECURITY": relay.faults.security} | values)


@pytest.mark.parametrize(
    ("local", "literal"),
    [
        ("192.0.2.7", "[192.0.2.7]"),
        ("2001:db8::7", "[IPv6:2001:db8::7]"),
        ("::ffff:192.0.2.7", "[192.0.2.7]"),
        ("fe80::1%eth0", "[IPv6:fe80::1]"),
    ],
)
def test_an_address_literal(local: str, literal: str) -> None:
    """Without a name the connection's own address is said (RFC 5321, 4.1.3 and 4.1.4)."""
    assert address_literal(local) == literal


@pytest.mark.parametrize("loopback", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_a_relay_on_this_machine(monkeypatch: pytest.MonkeyPatch, loopback: str) -> None:
    """To a relay on this machine its address for others is said, else its name; loopback only where it has neither."""
    monkeypatch.setattr(socket, "gethostname", lambda: "4f1b2c3d4e5f")
    assert address_literal(loopback, find_own=lambda: "192.0.2.7") == "[192.0.2.7]"
    assert address_literal(loopback, find_own=lambda: "") == "4f1b2c3d4e5f"
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert address_literal(loopback, find_own=lambda: "").startswith("[")


async def test_neither_localhost_nor_loopback() -> None:
    """The name in EHLO is never localhost, and no loopback address, where this machine has any other."""
    async with Relay(Faults(auth=())) as relay:
        said = (await _dial(relay, EMAIL_HELO="")).helo
    assert relay.commands[0].line == f"EHLO {said}"
    assert "localhost" not in said


@pytest.mark.parametrize(
    "refusal", ["500 5.5.1 unknown", "501 5.5.4 no", "502 5.5.1 not implemented", "550 no EHLO", "554 no"]
)
async def test_a_relay_without_ehlo(refusal: str) -> None:
    """A relay that refuses EHLO with 5yz is greeted with HELO, and announces nothing (RFC 5321, 3.2)."""
    async with Relay(Faults(auth=(), refuse_ehlo=refusal)) as relay:
        signed_in = await _dial(relay, EMAIL_HELO="me.example.org")
    assert [command.line for command in relay.commands] == ["EHLO me.example.org", "HELO me.example.org"]
    assert signed_in.capabilities.extensions == {}


async def test_a_relay_that_needs_starttls_and_knows_no_ehlo(certificates: Certificates) -> None:
    """HELO announces neither STARTTLS nor a sign-in, so it is no way out where one of these is needed."""
    async with Relay(Faults(auth=(), security="starttls", refuse_ehlo="502 no"), certificates=certificates) as relay:
        with pytest.raises(ConnectFailed, match=r"^the relay refused EHLO: 502 no$"):
            await _dial(relay)
        with pytest.raises(ConnectFailed, match=r"^the relay refused EHLO: 502 no$"):
            await _dial(relay, EMAIL_SECURITY="plain", EMAIL="user", APP_PASSWORD="secret")


@pytest.mark.parametrize("refusal", ["421 4.3.2 busy", "451 4.3.0 later"])
async def test_ehlo_that_is_refused_for_now(refusal: str) -> None:
    """A 4yz to EHLO is a failed dial, without HELO after it."""
    async with Relay(Faults(auth=(), refuse_ehlo=refusal)) as relay:
        with pytest.raises(ConnectFailed, match=f"^the relay refused EHLO: {refusal[:3]} ") as caught:
            await _dial(relay)
    assert caught.value.code == int(refusal[:3])
    assert len(relay.commands) == 1


@pytest.mark.parametrize(
    ("faults", "values", "words"),
    [
        (
            {"certificate": "self_signed"},
            {"EMAIL_HOST": "localhost"},
            r"self-signed.*set EMAIL_CA_FILE to a file with that",
        ),
        ({"certificate": "expired"}, {"ca": "yes"}, r"^its certificate has expired"),
        (
            {"certificate": "wrong_name"},
            {"ca": "yes"},
            r"is not for 127\.0\.0\.1; set EMAIL_HOST .*EMAIL_TLS_NAME to that name",
        ),
        ({}, {}, r"signed by an authority that is not trusted here .*set EMAIL_CA_FILE"),
        (
            {"tls_1_1": True},
            {"ca": "yes"},
            r"broke off the handshake of TLS; it may speak only versions before TLS 1\.2",
        ),
    ],
)
@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_tls_that_fails(
    faults: dict[str, Any], values: dict[str, str], words: str, security: str, certificates: Certificates
) -> None:
    """The error says which setting cures a certificate that can't be verified, over TLS and over STARTTLS."""
    ca = {"EMAIL_CA_FILE": str(certificates.ca_file)} if "ca" in values else {}
    values = {name: value for name, value in values.items() if name != "ca"} | ca
    async with Relay(Faults(auth=(), security=security, **faults), certificates=certificates) as relay:  # type: ignore[arg-type]
        with pytest.raises(ConnectFailed, match=words):
            await _dial(relay, **values)


async def test_the_cures_work(certificates: Certificates) -> None:
    """EMAIL_TLS_NAME cures a certificate for another name, and EMAIL_CA_FILE a self-signed one."""
    ca = str(certificates.ca_file)
    async with Relay(Faults(auth=(), security="tls", certificate="wrong_name"), certificates=certificates) as relay:
        assert (await _dial(relay, EMAIL_CA_FILE=ca, EMAIL_TLS_NAME="relay.invalid")).capabilities
    async with Relay(Faults(auth=(), security="tls", certificate="self_signed"), certificates=certificates) as relay:
        self_signed = str(certificates.self_signed_file)
        assert (await _dial(relay, EMAIL_HOST="localhost", EMAIL_CA_FILE=self_signed)).capabilities


@pytest.mark.skipif(not is_present("::1"), reason="this machine has no ::1")
async def test_brackets_around_an_ipv6_address(certificates: Certificates) -> None:
    """EMAIL_HOST=[::1] is the address, and the certificate is verified for it."""
    async with Relay(Faults(auth=(), security="tls"), certificates=certificates, host="::1") as relay:
        signed_in = await _dial(relay, EMAIL_HOST="[::1]", EMAIL_CA_FILE=str(certificates.ca_file))
    assert signed_in.address == "::1"


async def test_a_port_for_tls_that_is_spoken_to_in_plain_text(certificates: Certificates) -> None:
    """A relay that waits for TLS is silent, and the error names EMAIL_SECURITY=tls."""
    async with Relay(Faults(auth=(), security="tls"), certificates=certificates) as relay:
        for security in ("starttls", "plain"):
            with pytest.raises(ConnectFailed, match=r"no greeting after 0\.2 s; .*set EMAIL_SECURITY=tls$"):
                await _dial(relay, EMAIL_SECURITY=security, EMAIL_TIMEOUT="0.2")


async def test_a_port_without_tls(certificates: Certificates) -> None:
    """Plain text in place of TLS is recognised, and the error names EMAIL_SECURITY=starttls."""
    async with Relay(Faults(auth=()), certificates=certificates, host=HOST) as relay:
        with pytest.raises(ConnectFailed, match=r"^does not speak TLS on this port.*set EMAIL_SECURITY=starttls"):
            await _dial(relay, EMAIL_SECURITY="tls")


async def test_a_relay_that_speaks_old_tls_and_says_so(certificates: Certificates) -> None:
    """A relay that ends the handshake with an alert about the version is named as too old."""
    async with failing_handshake(certificates.server_context(tls_1_1=True)) as port:
        with pytest.raises(ConnectFailed, match="speaks only versions of TLS that are not safe"):
            await dial_port(port, EMAIL_SECURITY="tls")


async def test_starttls_that_is_refused(certificates: Certificates) -> None:
    """A refused STARTTLS is named with the relay's words."""
    faults = Faults(auth=(), security="starttls", refuse_starttls="454 4.7.0 TLS not available")
    async with Relay(faults, certificates=certificates) as relay:
        with pytest.raises(
            ConnectFailed, match=r"^the relay refused STARTTLS: 454 4\.7\.0 TLS not available$"
        ) as caught:
            await _dial(relay)
    assert caught.value.code == 454
