"""Mails that take long to read, check, write or send: whatever their shape, others have the loop in between."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from attacks.probe import ProbedService
from calls import parsed
from otpmail.v1 import mail_pb2
from relay import Certificates, Faults, Relay
from service import relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from relay.faults import Security

MB = 1_000_000
TEN_MIB = 10 << 20


def _text_of(part: str, octets: int) -> dict[str, Any]:
    return {"text": part * (octets // len(part.encode()))}


def _files(*sizes: int, filename: str = "a.bin", **more: Any) -> list[mail_pb2.Attachment]:
    return [mail_pb2.Attachment(filename=filename, content=b"\0" * size, **more) for size in sizes]


def _images(count: int) -> list[mail_pb2.Attachment]:
    return [
        mail_pb2.Attachment(filename="a.png", content=b"\0" * 1000, content_id=f"{number:c>128}")
        for number in range(count)
    ]


def _mail_as_file(content: bytes) -> dict[str, Any]:
    return {"attachments": [mail_pb2.Attachment(content_type="message/rfc822", content=content)]}


def _headers(value: str, name: str = "X-") -> list[mail_pb2.Header]:
    return [mail_pb2.Header(name=f"{name}{number}", value=value) for number in range(50)]


def _idn(count: int, label: str = "ü" * 40) -> list[str]:
    """Addresses of so many domains that nobody has seen yet, since domains are remembered."""
    new = f"{secrets.randbelow(10**8):08}"
    return [f"p@{label}.{label}{new}{number}.example" for number in range(count)]


TEXTS: dict[str, str] = {
    "no line end": "x",
    "line ends": "\n",
    "lone CR": "\r",
    "dots": "\r\n.",
    "dots of two": "\r\n..",
    "equals signs": "=",
    "blanks": " ",
    "tabs and line ends": "\t\n",
    "accents": "é",
    "accents and blanks": "é ",
    "ideographs": "你",
    "emoji": "😀",
    "lines of 998": "x" * 998 + "\n",
    "lines of 999": "x" * 999 + "\n",
    "lines of 76 and a blank": "x" * 75 + " \n",
    "separators": "\u2028",
    "delimiters": "\n--=_",
    "form feeds": "\f",
    "vertical tabs": "\x0b",
    "lines of control characters": "x" * 20 + "\x1b\n",
}
"""The content that a text of some MB repeats."""

WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "NUL at the end": lambda: {"text": "x" * (TEN_MIB - 1) + "\0"},
    "lone NUL in HTML": lambda: {"html": "é" * (4 * MB) + "\0"},
    "files of 10 MB": lambda: {"attachments": _files(*[200_000] * 50)},
    "one file of 10 MB": lambda: {"attachments": _files(10 * MB)},
    "text and HTML": lambda: {"text": "x" * (5 * MB), "html": "y" * (6 * MB)},
    "an encoding too long": lambda: {"text": "é" * (5 * MB)},
    "subject": lambda: {"subject": "x" * 100_000},
    "subject of line ends": lambda: {"subject": "\n" * 100_000},
    "recipients in each list": lambda: {"to": _idn(100), "cc": _idn(100), "bcc": _idn(100)},
    "a file name too long": lambda: {"attachments": _files(1, filename="é" * 256)},
    "a control character in the last name": lambda: {"attachments": [*_files(*[1] * 49), *_files(1, filename="a\rb")]},
    "headers too long": lambda: {"headers": _headers("é" * 4097)},
    "labels too many": lambda: {"labels": {str(number): "" for number in range(33)}},
    "a message id of dots": lambda: {"message_id": "a." * 125},
    "a return path of blanks": lambda: {"return_path": " " * 60_000},
    "a composite type": lambda: {"attachments": _files(1, content_type="multipart/" + "x" * 64)},
    "a name of blanks": lambda: {"to": ["a" + " " * 700 + "<"]},
    "structured headers of quotes": lambda: {"headers": _headers('"' * 4096, "X-SES-")},
    "structured headers of brackets": lambda: {"headers": _headers("<" * 4096, "X-SES-")},
    "a mail as a file in one line": lambda: _mail_as_file(b"x" * (9 * MB)),
    "a mail as a file with a NUL at its end": lambda: _mail_as_file(b"x\n" * (4 * MB) + b"\0"),
    "a type of quotes": lambda: {"attachments": _files(1, content_type='a/b; c="' + '\\"' * 200)},
}
"""Mails that are refused."""

GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "50 long names": lambda: {"attachments": _files(*[1] * 50, filename="é" * 255)},
    "50 names of emoji": lambda: {"attachments": _files(*[1] * 50, filename="😀" * 255)},
    "50 names of quotes": lambda: {"attachments": _files(*[1] * 50, filename='"\\' * 127)},
    "50 names of percent signs": lambda: {"attachments": _files(*[1] * 50, filename="%" * 255)},
    "50 names like encoded words": lambda: {"attachments": _files(*[1] * 50, filename="=?utf-8?q?a?=" * 19)},
    "50 inline images": lambda: {"html": "<p>", "attachments": _images(50)},
    "50 files": lambda: {"attachments": _files(*[140_000] * 50)},
    "one file": lambda: {"attachments": _files(7 * MB)},
    "text and HTML": lambda: {"text": "line\n" * MB, "html": "<p>é</p>\n" * 100_000},
    "100 domains in other letters": lambda: {"to": _idn(34), "cc": _idn(33), "bcc": _idn(33)},
    "100 domains of many labels": lambda: {"bcc": _idn(100, label="é." * 11 + "é")},
    "100 domains from right to left": lambda: {"bcc": _idn(100, label="א" * 30)},
    "100 A-labels": lambda: {"bcc": [f"p@xn--bcher-kva.x{number}.example" for number in range(100)]},
    "100 local parts in other letters": lambda: {"bcc": [f"{'é' * 30}{number}@example.org" for number in range(100)]},
    "100 long names of people": lambda: {"to": [f"{'é' * 256} <p{number}@example.org>" for number in range(100)]},
    "100 quoted names": lambda: {"cc": [f'"{"a, " * 80}" <p{number}@example.org>' for number in range(100)]},
    "100 names of blanks": lambda: {"cc": [f"a{' ' * 254}b <p{number}@example.org>" for number in range(100)]},
    "headers of the longest values": lambda: {"headers": _headers('"",' * 5461, "X-SES-")[:12]},
    "50 long headers": lambda: {"headers": _headers("é" * 4096)},
    "50 headers of words": lambda: {"headers": _headers("a " * 2047 + "b")},
    "50 headers of blanks": lambda: {"headers": _headers(" " * 4096)},
    "long subject": lambda: {"subject": "é" * 998},
    "50 headers of one name": lambda: {"headers": [mail_pb2.Header(name="X-A", value="é" * 4096)] * 50},
    "labels": lambda: {"labels": {f"{number:02}": "x" * 126 for number in range(32)}},
    "labels in other letters": lambda: {"labels": {f"{number}": "😀" * 250 for number in range(4)}},
    "50 structured headers of commas": lambda: {"headers": _headers("<a>," * 1024, "X-SES-")},
    "50 structured headers of strings": lambda: {"headers": _headers('"",' * 1365, "X-SES-")},
    "50 structured headers of blanks": lambda: {"headers": _headers("a " * 2048, "X-SES-")},
    "100 people who need SMTPUTF8": lambda: {"to": [f"{'é' * 250} <é{number}@example.org>" for number in range(100)]},
    "a large text file": lambda: {"attachments": _files(7 * MB, content_type="text/csv")},
    "50 text files": lambda: {"attachments": _files(*[100_000] * 50, content_type="text/csv")},
    "a large mail as a file": lambda: _mail_as_file(b"Subject: x\n\n" + b"line\n" * MB),
    "a mail as a file of line ends": lambda: _mail_as_file(b"\r" * (4 * MB)),
    "a large mail as a file in 8bit": lambda: _mail_as_file("é\n".encode() * MB),
    "50 types with parameters": lambda: {"attachments": _files(*[1] * 50, content_type='a/b; c="' + '\\"' * 200 + '"')},
    "a long message id": lambda: {"message_id": ".".join("a" * 124) + "@b"},
    "odd types": lambda: {"attachments": _files(*[1] * 50, content_type="!#$&^_.+-" + "a" * 55 + "/" + "b" * 64)},
}
"""Mails that are sent."""


@asynccontextmanager
async def _probed(
    certificates: Certificates, tmp_path: Path, *, security: Security = "plain", chunking: bool = True, **more: object
) -> AsyncIterator[tuple[ProbedService, Relay]]:
    faults = Faults(security=security, chunking=chunking)
    async with Relay(faults, certificates=certificates) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | more
        async with ProbedService(tmp_path, **settings) as service:
            await service.wait_until_serving()
            yield service, relay


async def _send(service: ProbedService, fields: dict[str, Any]) -> grpc.StatusCode:
    recipients = {} if {"to", "cc", "bcc"} & fields.keys() else {"to": ["ada@example.org"]}
    request = mail_pb2.SendMailRequest(**({"subject": "Hello"} | recipients | fields))
    try:
        answer = await service.mail.SendMail(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    assert answer.mail.state == mail_pb2.Mail.STATE_RELAYED, answer.mail
    return grpc.StatusCode.OK


async def _longest_turns(
    service: ProbedService,
    shapes: Mapping[str, Callable[[], dict[str, Any]]],
    code: grpc.StatusCode,
    longest_turn: float,
) -> dict[str, float]:
    """Send a mail of each shape, which must end with the code; return the longest turns, in milliseconds."""
    turns = {}
    for name, fields in shapes.items():

        async def attack(name: str = name, fields: Callable[[], dict[str, Any]] = fields) -> None:
            assert await _send(service, fields()) == code, name

        turns[name] = round(await service.longest_turn_of(attack, within=longest_turn) * 1000, 1)
    return turns


def _too_long(turns: dict[str, float], longest_turn: float) -> dict[str, float]:
    return {name: turn for name, turn in turns.items() if turn > longest_turn * 1000}


@pytest.mark.parametrize(
    ("security", "chunking"),
    [("plain", True), ("plain", False), pytest.param("tls", True, marks=pytest.mark.full)],
    ids=["BDAT", "DATA", "BDAT over TLS"],
)
async def test_no_mail_holds_the_loop(
    certificates: Certificates,
    tmp_path: Path,
    security: Security,
    *,
    chunking: bool,
    full: bool,
    longest_turn: float,
) -> None:
    """The loop is never held for more than 30 ms by a mail that is sent, whatever it is made of."""
    async with _probed(certificates, tmp_path, security=security, chunking=chunking) as (service, relay):
        turns = await _longest_turns(service, GOOD, grpc.StatusCode.OK, longest_turn)
        assert not _too_long(turns, longest_turn)
        texts = {name: partial(_text_of, part, (4 if full else 1) * MB) for name, part in TEXTS.items()}
        turns = await _longest_turns(service, texts, grpc.StatusCode.OK, longest_turn)
        assert not _too_long(turns, longest_turn)
        assert len(relay.mails) >= len(GOOD) + len(TEXTS)


async def test_no_mail_that_is_refused_holds_the_loop(
    certificates: Certificates, tmp_path: Path, longest_turn: float
) -> None:
    """The loop is never held for more than 30 ms by a mail that is too large or has a wrong field."""
    async with _probed(certificates, tmp_path) as (service, relay):
        turns = await _longest_turns(service, WRONG, grpc.StatusCode.INVALID_ARGUMENT, longest_turn)
        assert not _too_long(turns, longest_turn)
        assert not relay.mails


async def test_a_batch_of_slow_addresses_holds_the_loop_no_longer(
    certificates: Certificates, tmp_path: Path, longest_turn: float
) -> None:
    """Twenty mails of a batch, each to 300 domains in other letters, hold the loop no longer than a mail may."""
    async with _probed(certificates, tmp_path, MAIL_MAX_RECIPIENTS=300) as (service, _):

        async def attack() -> None:
            mails = [
                mail_pb2.SendMailRequest(request_id=secrets.token_hex(8), to=_idn(100), cc=_idn(100), bcc=_idn(100))
                for _ in range(20)
            ]
            call = service.mail.SendMails(iter([mail_pb2.SendMailsRequest(mails=mails)]))
            results = [result async for response in call for result in response.results]
            assert [result.mail.state for result in results] == [mail_pb2.Mail.STATE_RELAYED] * 20

        assert await service.longest_turn_of(attack, within=longest_turn) <= longest_turn


async def test_many_large_mails_at_once_hold_the_loop_no_longer(
    certificates: Certificates, tmp_path: Path, longest_turn: float
) -> None:
    """Eighteen mails of 6 MB from six callers hold the loop no longer than one of them does, and all arrive whole."""
    text = "line of a large mail\n" * 300_000
    async with _probed(certificates, tmp_path) as (service, relay):

        async def caller(number: int) -> None:
            for _ in range(3):
                assert await _send(service, {"to": [f"p{number}@example.org"], "text": text}) == grpc.StatusCode.OK

        async def attack() -> None:
            async with asyncio.TaskGroup() as callers:
                for number in range(6):
                    callers.create_task(caller(number))

        assert await service.longest_turn_of(attack, within=longest_turn) <= longest_turn
        assert {parsed(mail.content).get_content() for mail in relay.mails} == {text.replace("\n", "\r\n")}
        assert len(relay.mails) >= 18


@pytest.mark.parametrize("method", ["SendMail", "GetMail"])
async def test_large_requests_that_arrive_together(
    certificates: Certificates, tmp_path: Path, method: str, longest_turn: float
) -> None:
    """Eighteen requests of 9 MB that are there in one moment hold the loop no longer than one of them does."""
    text = "line of a large mail\n" * 430_000
    mail = mail_pb2.SendMailRequest(to=["ada@example.org"], text=text, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    octets = (mail if method == "SendMail" else mail_pb2.GetMailRequest(id=text)).SerializeToString()
    async with _probed(certificates, tmp_path) as (service, _), AsyncExitStack() as stack:
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(service.address, options=options))
            for _ in range(6)
        ]
        calls: list[Any] = [channel.unary_unary(f"/otpmail.v1.MailService/{method}") for channel in channels]

        async def attack() -> None:
            ends = await asyncio.gather(*(calls[place % 6](octets) for place in range(18)), return_exceptions=True)
            codes = {end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)}
            assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}

        assert await service.longest_turn_of(attack, within=longest_turn) <= longest_turn
