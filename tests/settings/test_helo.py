"""The name in EHLO, as far as settings and the name of the machine decide it."""

import socket

import pytest

from otpmail.address import Address
from otpmail.settings.helo import host_name, is_helo, sender_domain
from settings.conftest import Load, Problems


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ("mx1.example.org", "mx1.example.org"),
        ("ip-10-0-0-7.ec2.internal", "ip-10-0-0-7.ec2.internal"),
        ("mx1.example.org.", "mx1.example.org"),
        ("4f1b2c3d4e5f", ""),  # a container
        ("localhost", ""),
        ("localhost.localdomain", ""),
        ("box.localdomain", ""),
        ("app.localhost", ""),
        ("10.0.0.7", ""),
        ("my_host.example.org", ""),
        ("-a.example.org", ""),
        ("", ""),
    ],
)
def test_the_name_of_the_machine(monkeypatch: pytest.MonkeyPatch, machine: str, said: str) -> None:
    """The host name is said if it has a dot and does not mean loopback."""
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    assert host_name() == said


@pytest.mark.parametrize(
    ("sender", "relay", "said"),
    [
        ("codes@example.org", "smtp.gmail.com", "example.org"),
        ("codes@Example.org", "10.0.0.1", "example.org"),
        ("codes@xn--bcher-kva.example", "relay", "xn--bcher-kva.example"),
        ("codes@example.org", "smtp.example.org", ""),  # the relay's own
        ("codes@example.org", "EXAMPLE.ORG", ""),
        ("codes@example.org", "smtp.notexample.org", "example.org"),
        ("someone@gmail.com", "relay.example.org", ""),
        ("someone@OUTLOOK.com", "relay.example.org", ""),
        ("someone@mail.yahoo.com", "relay.example.org", ""),
        ("someone@notgmail.com", "relay.example.org", "notgmail.com"),
        ("root@localhost", "relay.example.org", ""),
        ("root@intranet", "relay.example.org", ""),
    ],
)
def test_the_domain_of_the_sender(sender: str, relay: str, said: str) -> None:
    """The domain of EMAIL_FROM is said unless it is the relay's own, a mailbox provider's, or known here alone."""
    assert sender_domain(Address(sender), relay) == said


def test_the_order(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMAIL_HELO, a host name with a dot, the domain of EMAIL_FROM; what is empty then follows from the connection."""
    monkeypatch.setattr(socket, "gethostname", lambda: "mx1.example.org")
    sender = {"EMAIL_FROM": "codes@shop.example"}
    assert load(**sender, EMAIL_HELO="me.example.net").relay.name_in_ehlo == "me.example.net"
    assert load(**sender, EMAIL_HELO="").relay.name_in_ehlo == "mx1.example.org"
    monkeypatch.setattr(socket, "gethostname", lambda: "4f1b2c3d4e5f")
    assert load(**sender).relay.name_in_ehlo == "shop.example"
    assert load(EMAIL_FROM="someone@gmail.com").relay.name_in_ehlo == ""
    two = load(**sender, EMAIL_RELAYS="smtp://mail.shop.example smtp://relay.example.net?helo=two.example.net")
    assert [relay.name_in_ehlo for relay in two.relays] == ["", "two.example.net"]
    assert load(**sender, EMAIL_RELAYS="smtp://relay.example.net").relay.name_in_ehlo == "shop.example"


@pytest.mark.parametrize("text", ["me", "a.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--bcher-kva.example"])
def test_what_may_be_said(text: str) -> None:
    """EMAIL_HELO is a host name or an address literal (RFC 5321, 4.1.1.1)."""
    assert is_helo(text)


@pytest.mark.parametrize(
    "text", ["a b", "a..b", ".a", "a.", "a_b", "[192.0.2.1", "bücher.example", "a" * 64, "a." * 130 + "a"]
)
def test_what_may_not_be_said(problems: Problems, text: str) -> None:
    """Any other text is refused at the start."""
    (line,) = problems(EMAIL_HELO=text)
    assert line.startswith("EMAIL_HELO: ")
    assert line.endswith(" is neither a host name nor an address literal")


def test_names_of_relays(load: Load, problems: Problems) -> None:
    """EMAIL_HOST may be an IPv6 address in brackets; EMAIL_TLS_NAME is a name or an address, for one relay each."""
    relay = load(EMAIL_HOST="[::1]", EMAIL_PORT="587").relay
    assert (relay.host, relay.endpoint, relay.server_name) == ("::1", "[::1]:587", "::1")
    assert load(EMAIL_HOST="::1", EMAIL_PORT="465").relay.endpoint == "[::1]:465"
    assert load(EMAIL_TLS_NAME="smtp.example.org", EMAIL_HOST="10.0.0.1").relay.server_name == "smtp.example.org"
    assert load(EMAIL_HOST="smtp.example.org.", EMAIL_TLS_NAME="").relay.server_name == "smtp.example.org"
    assert load(EMAIL_TLS_NAME="[2001:db8::1]").relay.server_name == "2001:db8::1"
    (line,) = problems(EMAIL_TLS_NAME="*.example.org")
    assert line == "EMAIL_TLS_NAME: '*.example.org' is neither a host name nor an IP address"
    urls = "smtps://10.0.0.1?tls_name=smtp.example.org smtp://[::1]:587"
    two = load(EMAIL_HOST="", EMAIL_RELAYS=urls, EMAIL_TLS_NAME="common.example.org")
    assert [relay.server_name for relay in two.relays] == ["smtp.example.org", "::1"]
    assert [relay.endpoint for relay in two.relays] == ["10.0.0.1:465", "[::1]:587"]
