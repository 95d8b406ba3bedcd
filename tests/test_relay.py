"""Tests of the test relay: that it behaves well by default, and misbehaves exactly as `Faults` says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import time
import warnings
from typing import TYPE_CHECKING

import aiosmtplib
import pytest

from relay import HOST, CaughtMail, Command, Faults, Relay
from relay.wire import Gone, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay import Certificates, Security

SENDER = "codes@example.org"
ANNA, BERT = "anna@example.com", "bert@example.com"
ENVELOPE = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ANNA}>\r\n"
CONTENT = b"Subject: hello\r\n\r\nline\r\n"
open_relay = pytest.mark.relay(auth=())


class Raw:
    """A client that sends bytes unchanged and reads replies by their code alone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take an open connection."""
        self._reader = reader
        self._writer = writer
        self.last: list[str] = []

    def send(self, data: str | bytes) -> None:
        """Send without waiting."""
        self._writer.write(data.encode() if isinstance(data, str) else data)

    async def code(self) -> int:
        """Read one reply, keep its lines in `last`, return its code; 0 when the connection is over."""
        self.last = []
        async with asyncio.timeout(20):
            while line := (await self._read_line()).decode():
                self.last.append(line.rstrip())
                if line[3] == " ":
                    return int(line[:3])
        return 0

    async def _read_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ConnectionResetError:
            return b""

    async def codes(self, count: int) -> list[int]:
        """Read that many replies."""
        return [await self.code() for _ in range(count)]

    async def ask(self, line: str) -> int:
        """Send a line and return the code of its reply."""
        self.send(line + "\r\n")
        return await self.code()

    async def is_over(self) -> bool:
        """Whether the relay has closed the connection, having said nothing more."""
        async with asyncio.timeout(20):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        """Close."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):  # the relay may have been faster
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[Raw]:
    """Connect in the clear."""
    raw = Raw(*await asyncio.open_connection(HOST, relay.port))
    try:
        yield raw
    finally:
        await raw.close()


@contextlib.asynccontextmanager
async def greeted(relay: Relay) -> AsyncIterator[Raw]:
    """Connect and get through the greeting and EHLO."""
    async with connected(relay) as raw:
        assert await raw.code() == 220
        assert await raw.ask("EHLO client.test") == 250
        yield raw


def client(relay: Relay, certificates: Certificates, host: str = "localhost") -> aiosmtplib.SMTP:
    """Return a client that uses the relay as its faults advertise it."""
    return aiosmtplib.SMTP(
        hostname=host,
        port=relay.port,
        use_tls=relay.faults.security == "tls",
        start_tls=relay.faults.security == "starttls",
        tls_context=certificates.client_context() if relay.faults.security != "plain" else None,
        username=relay.faults.username if relay.faults.auth else None,
        password=relay.faults.password if relay.faults.auth else None,
        timeout=5,
    )


def base64_of(text: str) -> str:
    """Encode as AUTH wants it."""
    return base64.b64encode(text.encode()).decode()


# A well-behaved relay.


@pytest.mark.parametrize(
    "security",
    [pytest.param(s, marks=pytest.mark.relay(security=s, auth=("CRAM-MD5", "LOGIN"))) for s in ("tls", "starttls")],
)
async def test_mail_over_tls_is_caught_whole(relay: Relay, certificates: Certificates, security: str) -> None:
    """A client that signs in over TLS hands over a mail, and the relay keeps all there is to know of it."""
    async with client(relay, certificates) as smtp:
        assert smtp.supports_extension("chunking")
        assert smtp.supports_extension("starttls") is False
        await smtp.sendmail(SENDER, [ANNA, BERT], b"Subject: hello\r\n\r\n.dot\r\n..two\r\n")
    (mail,) = await relay.wait_for_mails(1)
    assert mail == CaughtMail(
        connection=1,
        sender=SENDER,
        recipients=(ANNA, BERT),
        content=b"Subject: hello\r\n\r\n.dot\r\n..two\r\n",
        parameters={},
        username="user",
        mode="DATA",
    )
    assert relay.faults.security == security


@pytest.mark.parametrize("host", ["localhost", HOST])
@pytest.mark.relay(security="tls")
async def test_certificate_is_for_both_names(relay: Relay, certificates: Certificates, host: str) -> None:
    """The certificate holds for localhost and for 127.0.0.1."""
    async with client(relay, certificates, host) as smtp:
        assert smtp.is_connected


@open_relay
async def test_announces_what_it_offers(relay: Relay) -> None:
    """EHLO lists every extension that is on, and none that is off."""
    async with greeted(relay) as raw:
        assert {line[4:] for line in raw.last} >= {"PIPELINING", "CHUNKING", "SMTPUTF8", "8BITMIME"}
    relay.faults = Faults(pipelining=False, chunking=False, smtputf8=False, eightbitmime=False, size=1000)
    async with greeted(relay) as raw:
        assert {line[4:] for line in raw.last} == {"relay.test", "SIZE 1000", "AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES"}


@open_relay
async def test_takes_overlapped_groups(relay: Relay) -> None:
    """Content, its dot and the next mail's commands may come in one write, and replies come in order."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "DATA\r\n")
        assert await raw.codes(3) == [250, 250, 354]
        raw.send(b"..one\r\n.\r\n" + ENVELOPE.encode() + b"DATA\r\n")
        assert await raw.codes(4) == [250, 250, 250, 354]
        raw.send("two\r\n.\r\nRSET\r\nNOOP\r\nQUIT\r\n")
        assert await raw.codes(4) == [250, 250, 250, 221]
        assert await raw.is_over()
    assert [mail.content for mail in relay.mails] == [b".one\r\n", b"two\r\n"]


@open_relay
async def test_takes_a_flight_of_chunked_mails(relay: Relay) -> None:
    """Many mails with BDAT may come in one write; chunks are joined and hold any bytes."""
    body = b"\x00\r\n.\r\nQUIT\r\n\xff"
    flight = ENVELOPE.encode() + b"BDAT 3\r\nabcBDAT %d LAST\r\n%b" % (len(body), body)
    async with greeted(relay) as raw:
        raw.send(flight * 3)
        assert await raw.codes(12) == [250] * 12
    assert [(mail.content, mail.mode) for mail in relay.mails] == [(b"abc" + body, "BDAT")] * 3


@pytest.mark.parametrize("security", ["plain", "tls"])
async def test_reads_a_large_chunk(relay: Relay, certificates: Certificates, security: Security) -> None:
    """Input past what the relay reads ahead is waited for, not lost."""
    relay.faults = Faults(auth=(), security=security)
    body = bytes(range(256)) * 8192
    context = certificates.client_context() if security == "tls" else None
    raw = Raw(*await asyncio.open_connection(HOST, relay.port, ssl=context))
    raw.send(b"EHLO client.test\r\n")
    assert await raw.codes(2) == [220, 250]
    raw.send(ENVELOPE.encode() + b"BDAT %d LAST\r\n%b" % (len(body), body))
    assert await raw.codes(3) == [250, 250, 250]
    await raw.close()
    assert relay.mails[0].content == body


@open_relay
async def test_says_503_out_of_sequence(relay: Relay) -> None:
    """Commands out of sequence are refused, and change nothing (RFC 5321, 4.1.4)."""
    async with connected(relay) as raw:
        assert await raw.code() == 220
        assert await raw.ask(f"MAIL FROM:<{SENDER}>") == 503
        assert await raw.ask("EHLO client.test") == 250
        assert await raw.ask(f"RCPT TO:<{ANNA}>") == 503
        assert await raw.ask("DATA") == 503
        assert await raw.ask("BDAT 0 LAST") == 503
        assert await raw.ask(f"MAIL FROM:<{SENDER}>") == 250
        assert await raw.ask(f"MAIL FROM:<{SENDER}>") == 503
        assert await raw.ask("DATA") == 554
        assert await raw.ask(f"RCPT TO:<{ANNA}>") == 250
        assert await raw.ask("BDAT 0") == 250
        assert await raw.ask("DATA") == 503
        assert await raw.ask("FROB") == 500
    assert relay.mails == []


@pytest.mark.parametrize(("faults", "code"), [({}, 214), ({"helps_with_250": True}, 250)])
async def test_helps(relay: Relay, faults: dict[str, bool], code: int) -> None:
    """HELP is answered 214, or 250 as some do; what is no command is 500 (RFC 5321, 4.2.4)."""
    relay.faults = Faults(auth=(), **faults)  # type: ignore[arg-type]
    async with greeted(relay) as raw:
        assert await raw.ask("HELP") == code
        assert await raw.ask("XNIL") == 500


@open_relay
async def test_is_strict_about_syntax(relay: Relay) -> None:
    """Syntax that RFC 5321 forbids is rejected, so that a client that sends it fails its test."""
    async with greeted(relay) as raw:
        for wrong in ("MAIL FROM: <a@b.c>", "MAIL FROM:a@b.c", "MAIL FROM:<a b@c.d>", "MAIL FROM:<a@b.c> SIZE=x"):
            assert await raw.ask(wrong) in {501, 555}
        assert await raw.ask("MAIL FROM:<a@b.c> FOO=bar") == 555
        assert await raw.ask("MAIL FROM:<é@b.c>") == 553
        assert await raw.ask("MAIL FROM:<é@b.c> SMTPUTF8 BODY=8BITMIME") == 250
        assert await raw.ask("RCPT TO:<>") == 501
        assert await raw.ask("RCPT TO:<é@b.c>") == 250
        assert await raw.ask("DATA") == 354
        assert await raw.ask(".") == 250
    assert relay.mails[0].parameters == {"SMTPUTF8": "", "BODY": "8BITMIME"}


@pytest.mark.relay(auth=(), size=10, eightbitmime=False)
async def test_holds_to_its_limits(relay: Relay) -> None:
    """A mail that declares or has too many bytes is refused, and so is an 8-bit one without 8BITMIME."""
    async with greeted(relay) as raw:
        assert await raw.ask("MAIL FROM:<> SIZE=11") == 552
        assert await raw.ask("MAIL FROM:<> SIZE=10") == 250
        raw.send(f"RCPT TO:<{ANNA}>\r\nBDAT 11 LAST\r\n01234567890")
        assert await raw.codes(2) == [250, 552]
        raw.send(ENVELOPE.encode() + b"BDAT 1 LAST\r\n\xff")
        assert await raw.codes(3) == [250, 250, 554]


# Signing in.


@pytest.mark.relay(auth=("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"))
async def test_auth_needs_right_credentials(relay: Relay) -> None:
    """A client that has not signed in sends no mail, wrong credentials are 535, and secrets are not recorded."""
    async with greeted(relay) as raw:
        assert await raw.ask("MAIL FROM:<>") == 530
        assert await raw.ask(f"AUTH PLAIN {base64_of(chr(0) + 'user' + chr(0) + 'wrong')}") == 535
        assert await raw.ask("AUTH PLAIN %%%") == 501
        assert await raw.ask("AUTH NTLM") == 504
        assert await raw.ask("AUTH LOGIN") == 334
        assert await raw.ask("*") == 501
        assert await raw.ask("AUTH PLAIN") == 334
        assert await raw.ask(base64_of("\0user\0secret")) == 235
        assert await raw.ask("AUTH PLAIN") == 503
    lines = [command.line for command in relay.commands if command.line.startswith("AUTH")]
    assert lines == ["AUTH PLAIN ***", "AUTH PLAIN ***", "AUTH NTLM", "AUTH LOGIN", "AUTH PLAIN", "AUTH PLAIN"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_auth_with_a_client(relay: Relay, certificates: Certificates, mechanism: str) -> None:
    """Each mechanism is one that a client of the world knows."""
    relay.faults = Faults(auth=(mechanism,))
    async with client(relay, certificates) as smtp:
        await smtp.sendmail(SENDER, [ANNA], CONTENT)
    assert relay.mails[0].username == "user"


@pytest.mark.relay(auth=("XOAUTH2",))
async def test_xoauth2(relay: Relay) -> None:
    """A wrong token is answered as Google does, by 334 with the reason and then 535; a right one by 235."""
    async with greeted(relay) as raw:
        assert await raw.ask(f"AUTH XOAUTH2 {base64_of('user=user' + chr(1) + 'auth=Bearer no' + chr(1) * 2)}") == 334
        assert b'"status"' in base64.b64decode(raw.last[0][4:])
        assert await raw.ask("") == 535
        assert (
            await raw.ask(f"AUTH XOAUTH2 {base64_of('user=user' + chr(1) + 'auth=Bearer token' + chr(1) * 2)}") == 235
        )


# Refusals.


@pytest.mark.relay(auth=(), refuse_recipients={BERT: "550 5.1.1 no such user"})
async def test_refused_recipient_does_not_fail_the_others(relay: Relay) -> None:
    """A mail goes to the recipients that were accepted."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + f"RCPT TO:<{BERT}>\r\nBDAT 2 LAST\r\nhi")
        assert await raw.codes(4) == [250, 250, 550, 250]
    assert relay.mails[0].recipients == (ANNA,)


@pytest.mark.relay(auth=(), final_reply="451 4.3.0 later\nor not", times=2)
async def test_fault_strikes_as_often_as_it_should(relay: Relay) -> None:
    """The relay is correct again after `times` faults, and setting `faults` starts that count again."""
    async with greeted(relay) as raw:
        flight = ENVELOPE + "BDAT 2 LAST\r\nhi"
        raw.send(flight * 3)
        assert await raw.codes(9) == [250, 250, 451, 250, 250, 451, 250, 250, 250]
        relay.faults = Faults(auth=(), refuse_sender="550 5.7.1 no", times=1)
        raw.send(flight * 2)
        assert await raw.codes(6) == [550, 503, 503, 250, 250, 250]
    assert len(relay.mails) == 2


@pytest.mark.relay(greeting="421 4.3.2 too many connections", times=1)
async def test_greeting_may_turn_clients_away(relay: Relay) -> None:
    """A greeting that is not 220 ends the connection."""
    async with connected(relay) as raw:
        assert await raw.code() == 421
        assert await raw.is_over()
    async with connected(relay) as raw:
        assert await raw.code() == 220


@pytest.mark.relay(refuse_auth="454 4.7.0 temporary authentication failure", times=1)
async def test_right_credentials_may_be_refused(relay: Relay) -> None:
    """Signing in may fail although the credentials are right."""
    async with greeted(relay) as raw:
        command = f"AUTH PLAIN {base64_of(chr(0) + 'user' + chr(0) + 'secret')}"
        assert [await raw.ask(command), await raw.ask(command)] == [454, 235]


@pytest.mark.relay(auth=(), refuse_recipients={ANNA: "550 5.1.1 no"}, data_without_recipients=True)
async def test_354_although_all_recipients_failed(relay: Relay) -> None:
    """A relay may ask for content that has nowhere to go; a single dot gets it out of that."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "DATA\r\n")
        assert await raw.codes(3) == [250, 550, 354]
        assert await raw.ask(".") == 554
        assert await raw.ask(f"MAIL FROM:<{SENDER}>") == 250
    assert [command.line for command in relay.commands][-2:] == [".", f"MAIL FROM:<{SENDER}>"]


@pytest.mark.relay(auth=(), final_reply="250 2.0.0 one\r\n250 2.0.0 two")
async def test_says_one_reply_too_many(relay: Relay) -> None:
    """A reply with CRLF in it is as many replies as the client will see."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "BDAT 2 LAST\r\nhi")
        assert await raw.codes(4) == [250] * 4
    assert len(relay.mails) == 1


# Lost connections and silence.


@pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA", ".", "BDAT", "EHLO", "CONNECT"])
@pytest.mark.parametrize("late", [False, True])
async def test_connection_is_cut_at_a_point(relay: Relay, point: str, late: bool) -> None:  # noqa: FBT001
    """A connection is cut before or after the reply to the chosen command; a mail at its end is accepted."""
    relay.faults = Faults(auth=(), **{f"cut_{'after' if late else 'before'}_reply": point})  # type: ignore[arg-type]
    last = "BDAT 2 LAST\r\nhi" if point == "BDAT" else "DATA\r\n"
    steps = {"CONNECT": "", "EHLO": "EHLO x\r\n", "MAIL": "MAIL FROM:<>\r\n", "RCPT": f"RCPT TO:<{ANNA}>\r\n"}
    steps |= {"BDAT" if point == "BDAT" else "DATA": last, ".": ".\r\n"}
    async with connected(relay) as raw:
        for name, step in steps.items():
            raw.send(step)
            if name == point:
                break
            assert await raw.code() in {220, 250, 354}
        if late:
            assert await raw.code() in {220, 250, 354}
        assert await raw.is_over()
    assert len(relay.mails) == (point in {".", "BDAT"})
    await relay.wait_for_open(0)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["cut_before_reply", "cut_after_reply", "silent_at", "closing_at"])
async def test_a_point_may_be_the_number_of_a_reply(relay: Relay, kind: str, number: int) -> None:
    """Replies count from that to the first MAIL of a connection; a mail answered 421 is not accepted."""
    relay.faults = Faults(auth=(), **{kind: number}, times=1)  # type: ignore[arg-type]
    flight = ENVELOPE + "BDAT 2 LAST\r\nhiRSET\r\n"
    async with greeted(relay) as raw:
        assert await raw.ask("NOOP") == 250  # before a mail nothing is counted
        raw.send(flight * 3)
        whole = number if kind == "cut_after_reply" else number - 1
        assert await raw.codes(whole) == [250] * whole
        if kind == "closing_at":
            assert await raw.code() == 421
        if kind == "silent_at":
            await relay.wait_for_command(["RSET", "MAIL", "RCPT", "BDAT"][number % 4], (number + 3) // 4)
        else:
            assert await raw.is_over()
    await relay.wait_for_open(0)
    unread = number - (kind == "closing_at")  # the last one whose command took effect
    assert len(relay.mails) == (unread + 1) // 4
    assert relay.struck == {1}
    async with greeted(relay) as raw:
        raw.send(flight * 3)
        assert await raw.codes(12) == [250] * 12


async def test_replies_may_be_counted_anew(relay: Relay) -> None:
    """After `recount` the first reply of an open connection is again that to its next MAIL."""
    relay.faults = Faults(auth=())
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "BDAT 2 LAST\r\nhiRSET\r\n")
        assert await raw.codes(4) == [250] * 4
        await relay.wait_for_idle(1)
        relay.recount()
        relay.faults = Faults(auth=(), cut_before_reply=2)
        raw.send("NOOP\r\n" + ENVELOPE)
        assert await raw.codes(2) == [250] * 2
        assert await raw.is_over()


@pytest.mark.parametrize("chunking", [True, False])
async def test_421_in_place_of_the_final_reply(relay: Relay, chunking: bool) -> None:  # noqa: FBT001
    """A 421 in place of the reply to a content means that the mail is not accepted."""
    relay.faults = Faults(auth=(), chunking=chunking, closing_at="BDAT" if chunking else ".", times=1)
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + ("BDAT 2 LAST\r\nhi" if chunking else "DATA\r\n"))
        assert await raw.codes(2) == [250, 250]
        if not chunking:
            assert await raw.code() == 354
            raw.send(".\r\n")
        assert await raw.code() == 421
        assert await raw.is_over()
    assert relay.mails == []


@pytest.mark.relay(auth=(), silent_at="RCPT")
async def test_silence_lasts_until_the_client_leaves(relay: Relay) -> None:
    """A command may never be answered, and what follows it is not done; the relay notices the client's going."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "RSET\r\n")
        assert await raw.code() == 250
        await relay.wait_for_command("RCPT")
    await relay.wait_for_open(0)
    assert relay.commands[-1] == Command(1, f"RCPT TO:<{ANNA}>")


@pytest.mark.relay(auth=(), close_after=2)
async def test_closes_after_so_many_mails(relay: Relay) -> None:
    """After the last mail it takes on a connection the relay says 421 and closes."""
    async with greeted(relay) as raw:
        raw.send((ENVELOPE + "BDAT 2 LAST\r\nhi") * 3)
        assert await raw.codes(7) == [250] * 6 + [421]
        assert await raw.is_over()
    assert len(relay.mails) == 2


@open_relay
async def test_drops_idle_connections_only(relay: Relay) -> None:
    """Idle connections can be cut, with a reply or without; one in the middle of a mail stays."""
    async with greeted(relay) as idle, greeted(relay) as busy:
        assert await busy.ask(f"MAIL FROM:<{SENDER}>") == 250
        assert relay.drop_connections("421 4.3.2 shutting down") == 1
        assert await idle.code() == 421
        assert await idle.is_over()
        assert await busy.ask("RSET") == 250
        assert relay.drop_connections() == 1
        assert await busy.is_over()
    await relay.wait_for_open(0)
    assert (relay.connections, relay.max_open) == (2, 2)


@pytest.mark.relay(auth=(), delay=0.05)
async def test_a_late_reply_is_owed_until_it_has_left(relay: Relay) -> None:
    """A connection is idle once its last reply has left, and a wait for that then returns."""
    async with connected(relay) as raw:
        raw.send("EHLO x\r\n")
        await relay.wait_for_command("EHLO")
        await relay.wait_for_idle(1, timeout=5)
        assert await raw.codes(2) == [220, 250]


@open_relay
async def test_a_client_is_ready_once_it_has_reset(relay: Relay) -> None:
    """A client that is signed in and has not probed the relay is idle, and not ready."""
    async with greeted(relay) as raw:
        await relay.wait_for_idle(1)
        waiting = asyncio.create_task(relay.wait_for_ready(1))
        assert await raw.ask("NOOP") == 250
        await relay.wait_for_idle(1)
        assert not waiting.done()
        assert await raw.ask("RSET") == 250
        await waiting


@pytest.mark.relay(auth=(), delay=0.05)
async def test_delay_is_that_of_a_line(relay: Relay) -> None:
    """Pipelined commands wait for their replies together, in order, and the last one is not lost in a goodbye."""
    async with greeted(relay) as raw:
        start = time.monotonic()
        raw.send("NOOP\r\n" * 400 + "FROB\r\nQUIT\r\n")
        async with asyncio.timeout(10):  # one after the other they would take 20 s
            assert await raw.codes(402) == [250] * 400 + [500, 221]
        assert time.monotonic() - start > 0.04


class OnceClosed(asyncio.Transport):
    """A transport that may be neither used after its end nor closed twice, as one over TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.closing = False

    def is_closing(self) -> bool:
        """Whether it was closed, aborted or lost."""
        return self.closing

    def close(self) -> None:
        """Close, once."""
        assert not self.closing
        self.closing = True
        self.calls.append("close")

    def abort(self) -> None:
        """Abort, once, after a close or without."""
        assert "abort" not in self.calls
        self.closing = True
        self.calls.append("abort")


@pytest.mark.parametrize(
    ("steps", "calls"),
    [
        ("close abort", ["close", "abort"]),
        ("close close abort abort close", ["close", "abort"]),
        ("abort abort close", ["abort"]),
        ("lost abort", []),
        ("close lost abort close", ["close"]),
    ],
)
async def test_a_transport_that_has_ended_is_left_alone(steps: str, calls: list[str]) -> None:
    """A transport is closed once and aborted once at most, and not used after its loss."""
    ends = 0

    def lost(_: Wire) -> None:
        nonlocal ends
        ends += 1

    transport = OnceClosed()
    with socket.socket() as connection:
        wire = Wire(connection, sent=lambda: None, lost=lost)
        wire.connection_made(transport)
        for step in steps.split():
            match step:
                case "close":
                    wire.close()
                case "abort":
                    wire.abort()
                case "lost":
                    transport.closing = True
                    wire.connection_lost(None)
        wire.send(b"250 too late\r\n")
        with pytest.raises(Gone):
            wire.hold_input()
    assert transport.calls == calls
    assert ends == steps.count("lost")


@open_relay
async def test_comes_back_on_its_port(relay: Relay) -> None:
    """A closed relay refuses connections, cuts the open ones, and starts again on its port, which nobody else gets."""
    async with greeted(relay) as raw:
        port = relay.port
        await relay.close()
        assert await raw.is_over()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, port)
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind((HOST, port))
    await relay.start()
    async with greeted(relay):
        await relay.wait_for_connections(2)
    assert relay.port == port


@pytest.mark.parametrize("security", ["plain", "tls"])
async def test_closes_whatever_has_come(relay: Relay, security: Security) -> None:
    """The relay closes at once, also with connections that wait in the kernel or for a TLS handshake."""
    relay.faults = Faults(security=security)
    raws = [Raw(*await asyncio.open_connection(HOST, relay.port)) for _ in range(10)]
    await relay.wait_for_connections(1)
    raws += [Raw(*await asyncio.open_connection(HOST, relay.port)) for _ in range(10)]
    async with asyncio.timeout(5):  # less than the relay gives a handshake
        await relay.close()
    assert relay.open_connections == 0
    for raw in raws:
        assert await raw.code() in {0, 220}
        await raw.close()


async def test_waiting_ends_with_what_was_seen(relay: Relay) -> None:
    """A wait that is in vain says what the relay saw instead."""
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 1 mails: <Relay port=\d+ mails=0"):
        await relay.wait_for_mails(1, timeout=0.01)


# TLS gone wrong.


@pytest.mark.relay(security="tls", certificate="wrong_name")
async def test_wrong_certificate(relay: Relay, certificates: Certificates) -> None:
    """The certificate may be for another host, at which a client that checks goes away."""
    with pytest.raises(aiosmtplib.SMTPConnectError, match="mismatch"):
        await client(relay, certificates).connect()
    await relay.wait_for_open(0)
    assert relay.commands == []


@pytest.mark.relay(security="tls", tls_1_1=True)
async def test_tls_1_1(relay: Relay, certificates: Certificates) -> None:
    """The relay may know TLS 1.1 only: a client of today fails, one that lets it pass gets through."""
    context = certificates.client_context()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("localhost", relay.port, ssl=context)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    raw = Raw(*await asyncio.open_connection("localhost", relay.port, ssl=context))
    assert await raw.code() == 220
    await raw.close()
    assert relay.failed_handshakes == 1


@pytest.mark.relay(security="starttls")
async def test_nothing_before_starttls(relay: Relay, certificates: Certificates) -> None:
    """Before STARTTLS no AUTH is offered or done, and what was injected with STARTTLS is not obeyed (RFC 3207)."""
    async with greeted(relay) as raw:
        assert not any("AUTH" in line for line in raw.last)
        assert await raw.ask("AUTH PLAIN") == 530
        assert await raw.ask("MAIL FROM:<>") == 530
    relay.faults = Faults(security="starttls", strict=False)
    reader, writer = await asyncio.open_connection("localhost", relay.port)
    raw = Raw(reader, writer)
    await raw.code()
    raw.send("STARTTLS\r\nNOOP injected\r\n")
    assert await raw.code() == 220
    await writer.start_tls(certificates.client_context(), server_hostname="localhost")
    assert await raw.ask("EHLO client.test") == 250
    assert any("AUTH" in line for line in raw.last)
    assert not any("injected" in command.line for command in relay.commands)
    await raw.close()


@pytest.mark.relay(security="starttls", starttls_stripped=True)
async def test_stripped_starttls(relay: Relay) -> None:
    """STARTTLS is missing and AUTH is offered in the clear, as an attacker would have it."""
    async with greeted(relay) as raw:
        assert not any("STARTTLS" in line for line in raw.last)
        assert any("AUTH" in line for line in raw.last)
        assert await raw.ask("STARTTLS") == 502


@pytest.mark.relay(security="tls")
async def test_many_handshakes(relay: Relay, certificates: Certificates) -> None:
    """However early the client's hello comes, the handshake succeeds."""
    context = certificates.client_context()

    async def connect() -> int:
        raw = Raw(*await asyncio.open_connection("localhost", relay.port, ssl=context))
        code = await raw.code()
        await raw.close()
        return code

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(connect()) for _ in range(50)]
    assert {task.result() for task in tasks} == {220}
    assert (relay.connections, relay.failed_handshakes) == (50, 0)


# Odd protocols.


@pytest.mark.relay(auth=(), holds_replies=True, judging=0.1)
async def test_replies_may_be_held_back_until_a_content_is_judged(relay: Relay) -> None:
    """The replies of a flight with a content are held until it is judged; a command alone is answered at once."""
    async with greeted(relay) as raw:
        assert await raw.ask("NOOP") == 250
        raw.send(ENVELOPE + "BDAT 2 LAST\r\nhi")
        await relay.wait_for_command("BDAT")
        waiting = asyncio.create_task(raw.codes(3))
        await relay.wait_for_mails(1)
        assert not waiting.done()
        assert await waiting == [250] * 3
        raw.send("RSET\r\nQUIT\r\n")
        assert await raw.codes(2) == [250, 221]


@pytest.mark.parametrize("early", ["DATA\r\ncontent\r\n", "EHLO again\r\nNOOP\r\n", "AUTH PLAIN\r\nAA==\r\n"])
@open_relay
async def test_input_that_should_have_waited_is_found_out(relay: Relay, early: str) -> None:
    """Input behind a command that must be the last of its group ends the connection, unless the relay is lenient."""
    async with greeted(relay) as raw:
        raw.send(early)
        assert await raw.code() == 554
        assert await raw.is_over()
    relay.faults = Faults(auth=(), strict=False)
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "DATA\r\ncontent\r\n.\r\n")
        assert await raw.codes(4) == [250, 250, 354, 250]


@pytest.mark.relay(auth=(), pipelining=False)
async def test_pipelining_must_be_offered(relay: Relay) -> None:
    """Without PIPELINING, a command before the reply to the last one ends the connection; a chunk may follow BDAT."""
    async with greeted(relay) as raw:
        assert await raw.ask(f"MAIL FROM:<{SENDER}>") == 250
        assert await raw.ask(f"RCPT TO:<{ANNA}>") == 250
        raw.send("BDAT 2 LAST\r\nhi")
        assert await raw.code() == 250
        raw.send(ENVELOPE)
        assert await raw.code() == 554
        assert await raw.is_over()


@pytest.mark.parametrize(
    ("faults", "codes"),
    [
        (Faults(auth=()), [503, 250]),
        (Faults(auth=(), runs_refused_chunks=True), [502, 250, 250]),
        (Faults(auth=(), chunking=False), [500, 250, 250]),
    ],
)
async def test_refused_chunk_is_discarded_or_run(relay: Relay, faults: Faults, codes: list[int]) -> None:
    """The chunk of a refused BDAT is read past, or runs as commands, as with go-smtp or where BDAT is unknown."""
    relay.faults = faults
    async with greeted(relay) as raw:
        raw.send("BDAT 6 LAST\r\nNOOP\r\nRSET\r\n")
        assert await raw.codes(len(codes)) == codes


@pytest.mark.relay(auth=(), refuse_recipients={ANNA: "550 5.1.1 no"})
async def test_refused_chunk_ends_the_transaction(relay: Relay) -> None:
    """After a refused BDAT the next mail starts anew."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "BDAT 2 LAST\r\nhi")
        assert await raw.codes(3) == [250, 550, 503]
        raw.send(f"MAIL FROM:<>\r\nRCPT TO:<{BERT}>\r\nBDAT 2 LAST\r\nho")
        assert await raw.codes(3) == [250, 250, 250]
    assert (relay.mails[0].sender, relay.mails[0].recipients) == ("", (BERT,))


@pytest.mark.relay(auth=(), sticky_bdat=True, final_reply="451 4.3.0 later", times=1)
async def test_sticky_transaction_reaches_the_old_recipient(relay: Relay) -> None:
    """A mail sent without RSET after a rejected BDAT goes to the recipient of the mail before it, as with Exim."""
    async with greeted(relay) as raw:
        raw.send(ENVELOPE + "BDAT 2 LAST\r\nhi")
        assert await raw.codes(3) == [250, 250, 451]
        raw.send(f"MAIL FROM:<>\r\nRCPT TO:<{BERT}>\r\nBDAT 2 LAST\r\nho")
        assert await raw.codes(3) == [503, 250, 250]
        assert relay.mails[0].recipients == (ANNA, BERT)
        assert relay.mails[0].content == b"ho"


@pytest.mark.relay(auth=(), most_errors=2)
async def test_too_many_errors(relay: Relay) -> None:
    """After so many refusals for good it says 421 unasked, and closes."""
    async with greeted(relay) as raw:
        assert [await raw.ask("XNIL"), await raw.ask("NOOP"), await raw.ask("XNIL")] == [500, 250, 500]
        assert await raw.code() == 421
        assert await raw.is_over()


@open_relay
async def test_wait_for_quiet(relay: Relay) -> None:
    """A wait for quiet begins anew with each command, and ends when none has come for that long."""
    async with greeted(relay) as raw:
        waiting = asyncio.create_task(relay.wait_for_quiet(60, timeout=90))
        for _ in range(3):
            assert await raw.ask("NOOP") == 250
        assert not waiting.done()
        waiting.cancel()
        await relay.wait_for_quiet(0.1)
