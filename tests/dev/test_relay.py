"""The relay of `otpmail dev`, over a socket: it hands over each mail, by DATA and by BDAT, and delivers none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from otpmail.dev.caught import CaughtMail
from otpmail.dev.relay import CatchAllRelay

MAIL = b"Subject: Hello\r\n\r\nbody\r\n"
ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\n"
CAUGHT = CaughtMail("a@example.org", ("b@example.org", "c@example.org"), MAIL)


class Talk:
    """A client's connection, after EHLO."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, commands: bytes, replies: int) -> list[str]:
        """Send commands together, and return the codes of their replies."""
        self._writer.write(commands)
        return [(await self._reader.readline())[:3].decode() for _ in range(replies)]

    async def ehlo(self) -> set[str]:
        """Read the greeting, send EHLO, and return the extensions."""
        await self._reader.readline()
        self._writer.write(b"EHLO test\r\n")
        extensions = set()
        while True:
            line = (await self._reader.readline()).decode()
            extensions.add(line[4:].split()[0])
            if line[3] == " ":
                return extensions


@pytest.fixture
def caught() -> list[CaughtMail]:
    """The mails that the relay hands over."""
    return []


@asynccontextmanager
async def _connected(caught: list[CaughtMail]) -> AsyncIterator[Talk]:
    relay = CatchAllRelay(caught.append)
    reader, writer = await asyncio.open_connection("127.0.0.1", await relay.start())
    talk = Talk(reader, writer)
    try:
        async with asyncio.timeout(10):
            assert {"PIPELINING", "CHUNKING", "SMTPUTF8"} <= await talk.ehlo()
            yield talk
            assert await talk.say(b"QUIT\r\n", 1) == ["221"]
    finally:
        writer.close()
        await writer.wait_closed()
        await relay.close()


async def test_the_name_of_a_mail() -> None:
    """A refusal is asked with the ENVID of the mail, in capitals; a mail without one has none."""
    asked: list[tuple[str, str]] = []
    relay = CatchAllRelay(lambda _: None, lambda *about: asked.append(about))
    reader, writer = await asyncio.open_connection("127.0.0.1", await relay.start())
    talk = Talk(reader, writer)
    async with asyncio.timeout(10):
        assert "DSN" in await talk.ehlo()
        named = b"MAIL FROM:<a@example.org> SIZE=9 RET=HDRS ENVID=1f\r\nRCPT TO:<b@example.org>\r\nRSET\r\n"
        assert await talk.say(named + ENVELOPE, 6) == ["250"] * 6
    writer.close()
    await writer.wait_closed()
    await relay.close()
    assert asked == [("b@example.org", "1F"), ("b@example.org", ""), ("c@example.org", "")]


async def test_a_mail_by_data(caught: list[CaughtMail]) -> None:
    """DATA hands over the mail with its envelope, without the dots that SMTP adds."""
    async with _connected(caught) as talk:
        assert await talk.say(ENVELOPE + b"DATA\r\n", 4) == ["250", "250", "250", "354"]
        assert await talk.say(MAIL + b".\r\n", 1) == ["250"]
    assert caught == [CAUGHT]
    assert caught[0].message["Subject"] == "Hello"


async def test_a_mail_in_chunks(caught: list[CaughtMail]) -> None:
    """BDAT hands over the chunks as one mail after the last one, in a pipelined transaction, and then a second mail."""
    chunks = b"BDAT 10\r\n" + MAIL[:10] + b"BDAT %d LAST\r\n" % (len(MAIL) - 10) + MAIL[10:]
    async with _connected(caught) as talk:
        assert await talk.say(ENVELOPE + chunks, 5) == ["250"] * 5
        assert await talk.say(ENVELOPE + b"BDAT %d\r\n%sBDAT 0 LAST\r\n" % (len(MAIL), MAIL), 5) == ["250"] * 5
    assert caught == [CAUGHT, CAUGHT]


async def test_a_chunk_without_a_recipient(caught: list[CaughtMail]) -> None:
    """A chunk before RCPT is refused, and its content is not read as commands."""
    async with _connected(caught) as talk:
        assert await talk.say(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", 2) == ["503", "250"]
    assert caught == []


@pytest.mark.parametrize("arguments", [b"", b" x", b" -1", b" 5 FIRST", b" 999999999999"])
async def test_malformed_bdat(caught: list[CaughtMail], arguments: bytes) -> None:
    """BDAT needs a size within the limit, and nothing behind it but LAST."""
    async with _connected(caught) as talk:
        assert await talk.say(b"BDAT" + arguments + b"\r\n", 1) == ["501"]
    assert caught == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x1b[31m", "a line that is no SMTP command, maybe TLS"),
        (b"HELLO there", "the unknown command HELLO"),
    ],
)
async def test_what_is_no_command_is_not_logged_as_it_came(
    caught: list[CaughtMail], caplog: pytest.LogCaptureFixture, line: bytes, said: str
) -> None:
    """Octets of a TLS client are one short line of the log without them; an unknown command is named."""
    async with _connected(caught) as talk:
        assert await talk.say(line + b"\r\n", 1) == ["500"]
    (logged,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert logged.startswith(f"the relay of otpmail dev got {said}; its client is 127.0.0.1:")
    assert len(logged) < 120


REFUSED = b"RCPT TO:<550@fail.example>\r\n"
FAILURES = (("550@fail.example", "550 5.1.1 there is no such mailbox"),)


async def test_a_recipient_that_names_its_failure(caught: list[CaughtMail]) -> None:
    """A recipient at fail.example is refused, and the mail goes to the others; without others it is refused too."""
    async with _connected(caught) as talk:
        content = b"BDAT %d LAST\r\n" % len(MAIL) + MAIL
        assert await talk.say(ENVELOPE + REFUSED + content, 5) == ["250", "250", "250", "550", "250"]
        assert caught == [replace(CAUGHT, refused=FAILURES)]
        assert await talk.say(b"MAIL FROM:<a@example.org>\r\n" + REFUSED + content, 3) == ["250", "550", "503"]
        assert await talk.say(b"RSET\r\n", 1) == ["250"]
    assert caught[1:] == [CaughtMail("a@example.org", (), MAIL, FAILURES)]


@pytest.mark.parametrize("end", [b"RSET\r\n", b""])
async def test_a_mail_that_was_refused_without_its_content(caught: list[CaughtMail], end: bytes) -> None:
    """A client that sends no content after the refusal leaves a mail without content, seen at RSET or at the end."""
    async with _connected(caught) as talk:
        await talk.say(b"MAIL FROM:<a@example.org>\r\n" + REFUSED + b"DATA\r\n", 3)
        await talk.say(end, 1 if end else 0)
    await asyncio.sleep(0)
    assert caught == [CaughtMail("a@example.org", (), b"", FAILURES)]
