"""`otpmail check` against relays of every kind: it says in words what a person has to change.

Most tests run what the command runs, in this process.
"""

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import typer

from otpmail.cli.check.command import check_relays
from otpmail.cli.check.ports import USUAL_PORTS
from otpmail.settings import Settings
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

HOST = "127.0.0.1"
FROM = "codes@example.org"


class Checked(NamedTuple):
    """How the command ended, and what it printed."""

    code: int
    output: str


class Check(Protocol):
    """Checks the relays of these settings."""

    def __call__(self, **settings: object) -> Awaitable[Checked]:
        """Return how that ended; a setting that is None is not set."""


_SETTINGS: dict[str, object] = {"EMAIL": "user", "APP_PASSWORD": "secret", "EMAIL_FROM": FROM, "EMAIL_TIMEOUT": 3}


@pytest.fixture
def check(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    empty_directory: None,  # noqa: ARG001  for what it does
) -> Check:
    """Check in this process."""

    async def check(**settings: object) -> Checked:
        for name, value in (_SETTINGS | settings).items():
            monkeypatch.setenv(name, "" if value is None else str(value))  # an empty one counts as not set
        code = 0
        try:
            async with asyncio.timeout(30):
                await check_relays(Settings.load())
        except typer.Exit as end:
            code = end.exit_code
        return Checked(code, "".join(capsys.readouterr()).rstrip())

    return check


async def _check_by_command(**settings: object) -> Checked:
    service = Service(command="check", **_SETTINGS | settings)
    try:
        async with asyncio.timeout(30):
            await service.spawn()
            code = await service.wait_exited()
    finally:
        await service.close()
    return Checked(code, "\n".join(service.output))


def _by_name(good: str) -> Any:
    """Refuse every name in EHLO but one, as Postfix does: at RCPT."""
    return lambda name: (
        None if name == good else f"504 5.5.2 <{name}>: Helo command rejected: need fully-qualified hostname"
    )


_NO_SIGN_IN: dict[str, object] = {"EMAIL": None, "APP_PASSWORD": None}

# Faults of the relay, settings besides those that fit it, the exit code, and words of the output.
_RELAYS: dict[str, tuple[dict[str, Any], dict[str, object], int, str]] = {
    "good": ({}, {}, 0, r"the relay takes mails from EMAIL_FROM; none was sent"),
    "wrong password": ({"refuse_auth": "535 5.7.8 no"}, {}, 1, r"535 5\.7\.8 no; check EMAIL and APP_PASSWORD"),
    "app password": (
        {"refuse_auth": "534 5.7.9 Application-specific password required"},
        {},
        1,
        r"set APP_PASSWORD to an app password of the account",
    ),
    "SMTP AUTH switched off": (
        {"refuse_auth": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant"},
        {},
        1,
        r"an administrator has to allow SMTP AUTH for this mailbox; or set EMAIL_AUTH=xoauth2",
    ),
    "sign-in for now": ({"refuse_auth": "454 4.7.0 later"}, {}, 1, r"signing in failed for now: .*; try again later"),
    "no password offered": (
        {"auth": ("XOAUTH2",)},
        {"EMAIL_AUTH": None, "APP_PASSWORD": "x", "EMAIL_TOKEN_FILE": None},
        1,
        r"set EMAIL_TOKEN_FILE",
    ),
    "other mechanism": ({}, {"EMAIL_AUTH": "cram-md5"}, 1, r"set EMAIL_AUTH to one of these, or leave it unset"),
    "no sign-in offered": ({"auth": ()}, {"EMAIL": "u", "APP_PASSWORD": "p"}, 1, r"leave EMAIL and APP_PASSWORD unset"),
    "wants a sign-in": (
        {},
        _NO_SIGN_IN,
        1,
        r"MAIL FROM:<.*>: 530 .*\n  the relay wants a sign-in: set EMAIL and APP_PASSWORD",
    ),
    "too many sign-ins": (
        {"refuse_auth": "421 4.7.0 Too many concurrent connections for this user"},
        {},
        1,
        r"too many connections of this account or machine; .*WORKERS",
    ),
    "too many connections": (
        {"greeting": "421 4.3.2 too many connections from your host"},
        {},
        1,
        r"too many connections of this account or machine; .*WORKERS",
    ),
    "this address is refused": (
        {"greeting": "554 5.7.1 go away"},
        {},
        1,
        r"takes no connections from this machine's address",
    ),
    "busy": ({"greeting": "450 4.3.2 busy"}, {}, 1, r"the relay refuses for now; try again later"),
    "no TLS": ({}, {"EMAIL_SECURITY": "tls"}, 1, r"does not speak TLS on this port.*set EMAIL_SECURITY=starttls"),
    "no STARTTLS": (
        {},
        {"EMAIL_SECURITY": "starttls"},
        1,
        r"does not announce STARTTLS, which EMAIL_SECURITY=starttls.*set EMAIL_PORT to one with TLS",
    ),
    "self-signed": (
        {"security": "tls", "certificate": "self_signed"},
        {"EMAIL_HOST": "localhost", "EMAIL_CA_FILE": None},
        1,
        r"self-signed .*set EMAIL_CA_FILE",
    ),
    "other name": ({"security": "tls", "certificate": "wrong_name"}, {}, 1, r"EMAIL_TLS_NAME to that name"),
    "expired": ({"security": "starttls", "certificate": "expired"}, {}, 1, r"certificate has expired; .*clock"),
    "old TLS": ({"security": "tls", "tls_1_1": True}, {}, 1, r"versions before TLS 1\.2"),
    "client certificate": ({"security": "tls", "wants_certificate": True}, {}, 1, r"EMAIL_CERT_FILE"),
    "name refused in EHLO": (
        {"refuse_ehlo": "501 5.5.4 invalid EHLO hostname"},
        {"EMAIL_HELO": "me"},
        1,
        r"the relay refused the name me in EHLO: 501 .*; set EMAIL_HELO to a name of this machine that DNS knows$",
    ),
    "no EHLO": ({"auth": (), "refuse_ehlo": "502 5.5.1 unknown command"}, {"EMAIL_HELO": "me"}, 0, r"none was sent"),
    "name refused": (
        {"refuse_name": _by_name("me.example.org")},
        {"EMAIL_HELO": "box"},
        1,
        r"504 .*\n  the relay refuses the name box in EHLO; set EMAIL_HELO",
    ),
    "name taken": ({"refuse_name": _by_name("me.example.org")}, {"EMAIL_HELO": "me.example.org"}, 0, r"none was sent"),
    "sender refused": (
        {"refuse_sender": "553 5.7.1 Sender address rejected: not owned by user"},
        {},
        1,
        r"set EMAIL_FROM to an address of the account",
    ),
    "sender refused at RCPT": (
        {"refuse_recipients": {FROM: f"553 5.7.1 <{FROM}>: Sender address rejected: not owned by user"}},
        {},
        1,
        r"set EMAIL_FROM to an address of the account",
    ),
    "no relaying": (
        {"auth": (), "refuse_recipients": {FROM: "554 5.7.1 Relay access denied"}},
        {},
        1,
        r"the relay wants a sign-in: set EMAIL and APP_PASSWORD, or ask its operator",
    ),
    "no mailbox for the sender": (
        {"refuse_recipients": {FROM: "550 5.1.1 no such user"}},
        {},
        0,
        r"550 5\.1\.1 .*\n  the relay has no mailbox for the sender itself",
    ),
    "greylisting": (
        {"refuse_recipients": {FROM: "450 4.2.0 Greylisted, see http://postgrey.example/"}},
        {},
        0,
        r"450 4\.2\.0 .*\n  the relay defers .*nothing has to be changed",
    ),
    "too fast": ({"refuse_sender": "421 4.7.28 unusual rate of mail"}, {}, 1, r"too much at once .*EMAIL_RATE"),
    "TLS for mails": (
        {"refuse_sender": "530 5.7.0 Must issue a STARTTLS command first"},
        {},
        1,
        r"set EMAIL_SECURITY=starttls",
    ),
    "closes": ({"cut_before_reply": "MAIL"}, {}, 1, r"the relay closed the connection in place of a reply"),
}


@pytest.mark.parametrize("kind", _RELAYS)
async def test_what_to_change(kind: str, check: Check, certificates: Certificates, tmp_path: Path) -> None:
    """Each kind of relay that takes no mails gets exit code 1, and a line that says what to change."""
    await _check_kind(kind, check, certificates, tmp_path / "token")


@pytest.mark.parametrize("kind", ["good", "wrong password", "expired", "no mailbox for the sender"])
async def test_the_command(kind: str, certificates: Certificates, tmp_path: Path) -> None:
    """The command ends and says the same, as a process, whether or not the relay takes mails."""
    await _check_kind(kind, _check_by_command, certificates, tmp_path / "token")


async def _check_kind(kind: str, check: Check, certificates: Certificates, token_file: Path) -> None:
    faults, settings, code, words = _RELAYS[kind]
    async with Relay(Faults(**faults), certificates=certificates) as relay:
        known = relay_settings(relay, certificates, token_file)
        checked = await check(**known | settings)
    assert re.search(words, checked.output, re.MULTILINE), checked.output
    assert checked.code == code, checked.output
    assert relay.mails == []
    assert "Traceback" not in checked.output


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({}, r"535 5\.7\.8 .*; check the user in EMAIL_RELAYS and the password"),
        ({"auth": ("XOAUTH2",)}, r"set \?token_file= in EMAIL_RELAYS to a file with an access token"),
        (
            {"password": "other", "refuse_name": _by_name("me.example.org")},
            r"in EHLO; set \?helo= in EMAIL_RELAYS to a name",
        ),
        ({"refuse_ehlo": "501 5.5.4 invalid name"}, r"in EHLO: 501 .*; set \?helo= in EMAIL_RELAYS to a name"),
        ({"auth": ()}, r"leave the user in EMAIL_RELAYS and the password unset"),
    ],
)
async def test_what_to_change_in_a_url(check: Check, faults: dict[str, Any], words: str) -> None:
    """A relay of EMAIL_RELAYS is changed in its URL: no advice names a variable that has no effect beside it."""
    async with Relay(Faults(**faults)) as relay:
        checked = await check(EMAIL_RELAYS=f"smtp+plain://user:other@{HOST}:{relay.port}", **_NO_SIGN_IN)
    assert re.search(words, checked.output), checked.output
    assert not re.search(r"\bEMAIL\b|APP_PASSWORD|EMAIL_AUTH|EMAIL_TOKEN_FILE", checked.output)
    assert checked.code == 1


async def test_what_is_said_to_the_relay(check: Check, certificates: Certificates, tmp_path: Path) -> None:
    """The rehearsal is MAIL, RCPT to the sender itself and RSET, before the probe: no content is ever sent."""
    async with Relay(certificates=certificates) as relay:
        checked = await check(**relay_settings(relay, certificates, tmp_path / "token"))
    assert checked.code == 0
    lines = [command.line for command in relay.commands]
    assert lines[2:5] == [f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FROM}>", "RSET"]
    assert not any(line.startswith(("DATA", ".")) for line in lines)


def _own_host(number: int) -> str:
    """A loopback address of this run, where the providers' ports are free."""
    return f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.{number}"


@contextmanager
def _closed_port(host: str) -> Iterator[int]:
    """A port of the host that refuses connections, and that nobody else takes meanwhile."""
    with socket.socket() as holder:
        holder.bind((host, 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize(
    ("security", "port", "by_url", "words"),
    [
        ("starttls", 2525, False, r"port 2525 answers: set EMAIL_PORT=2525 and EMAIL_SECURITY=starttls"),
        ("tls", 2465, False, r"port 2465 answers: set EMAIL_PORT=2465 and EMAIL_SECURITY=tls"),
        ("starttls", 2587, True, r"port 2587 answers: write smtp://\.\.\.@127\.[0-9.]+:2587 in EMAIL_RELAYS"),
    ],
)
async def test_a_closed_port(
    check: Check, security: str, port: int, words: str, certificates: Certificates, *, by_url: bool
) -> None:
    """If the port does not answer the provider's others are tried, and the settings for one that does are printed."""
    host = _own_host(port % 100)
    faults = Faults(security=security, auth=(), certificate="right")  # type: ignore[arg-type]
    ca = {"EMAIL_CA_FILE": certificates.ca_file}
    async with Relay(faults, certificates=certificates, host=host, port=port):
        with _closed_port(host) as closed:
            at = {"EMAIL_HOST": host, "EMAIL_PORT": closed, "EMAIL_SECURITY": "starttls"}
            url = {"EMAIL_HOST": None, "EMAIL_RELAYS": f"smtp://{host}:{closed}?tls_name=127.0.0.1"}
            checked = await check(**(url if by_url else at | {"EMAIL_TLS_NAME": HOST}), **ca)
    assert checked.code == 1
    assert "cannot connect: Connection refused" in checked.output
    assert re.search(words, checked.output), checked.output


async def test_a_port_whose_certificate_is_unknown(check: Check, certificates: Certificates) -> None:
    """A port that answers with a certificate that can't be verified is found too, with that fault."""
    host = _own_host(98)
    async with Relay(Faults(security="starttls", auth=()), certificates=certificates, host=host, port=2525):
        with _closed_port(host) as closed:
            checked = await check(EMAIL_HOST=host, EMAIL_PORT=closed, EMAIL_SECURITY="starttls")
    assert checked.code == 1
    words = "port 2525 answers, but not as needed: its certificate is signed by .*"
    assert re.search(rf"{words}set EMAIL_CA_FILE", checked.output), checked.output


async def test_a_host_that_is_closed(check: Check) -> None:
    """Where no port answers, the host or a firewall is to be looked at."""
    host = _own_host(99)
    with _closed_port(host) as closed:
        checked = await check(EMAIL_HOST=host, EMAIL_PORT=closed)
    assert checked.code == 1
    ports = ", ".join(map(str, USUAL_PORTS))
    assert f"trying port {closed} with EMAIL_SECURITY=tls, and the ports {ports}" in checked.output
    assert "none of them answers as needed: check the host and the port, and whether a firewall" in checked.output


async def test_a_port_that_is_no_relay(check: Check, service: Service) -> None:
    """A port that speaks another protocol, here gRPC, gets no advice to set what was just tried."""
    port = service.address.rpartition(":")[2]
    checked = await check(EMAIL_HOST=HOST, EMAIL_PORT=port, EMAIL_SECURITY="plain", EMAIL_TIMEOUT=1)
    assert checked.code == 1
    assert f"trying port {port} with EMAIL_SECURITY=tls" in checked.output
    assert f"port {port} answers" not in checked.output


@pytest.mark.parametrize(
    "greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"* OK IMAP4rev1 ready\r\n", b"HTTP/1.1 400\r\n\r\n"]
)
async def test_a_port_that_closes_or_speaks_another_protocol(check: Check, greeting: bytes) -> None:
    """A port that closes without a greeting, or greets as no relay does, counts as no relay."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        checked = await check(EMAIL_HOST=HOST, EMAIL_PORT=port, EMAIL_SECURITY="starttls", EMAIL_TIMEOUT=2)
    assert checked.code == 1
    assert ("is this an SMTP server?" if greeting else "without a greeting") in checked.output
    assert f"trying port {port} with EMAIL_SECURITY=tls, and the ports" in checked.output
    assert "try again later" not in checked.output


async def test_a_port_for_tls_spoken_to_in_plain_text(check: Check, certificates: Certificates) -> None:
    """A relay that is silent because it waits for TLS is found at its own port."""
    async with Relay(Faults(security="tls", auth=()), certificates=certificates) as relay:
        checked = await check(
            EMAIL_HOST=HOST, EMAIL_PORT=relay.port, EMAIL_SECURITY="starttls", EMAIL_CA_FILE=certificates.ca_file
        )
    assert checked.code == 1
    assert f"port {relay.port} answers: set EMAIL_PORT={relay.port} and EMAIL_SECURITY=tls" in checked.output


async def test_a_host_that_is_unknown(check: Check) -> None:
    """A name without an address is named as the cause, and the setting with it."""
    checked = await check(EMAIL_HOST="relay.invalid", EMAIL_PORT=587, EMAIL_TIMEOUT=5)
    assert checked.code == 1
    assert re.search(
        r"(no address is known|the resolver (did not answer|knows no address)).* for relay\.invalid", checked.output
    )
