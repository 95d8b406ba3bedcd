"""Mails as people send them, of `corpus/*.toml`, as two readers find them: Python's `email`, and mailparser of Node."""

import json
import re
import subprocess
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import HeaderParser
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drafts import LIMITS, read_draft
from node_programs import install_modules, program
from otpmail.address import Address, parse_address
from otpmail.compose.attachment import EMBEDDED, Attachment
from otpmail.compose.draft import Draft
from otpmail.compose.media_type import DEFAULT_TYPE
from otpmail.compose.message import compose
from otpmail.model import Envelope

HERE = Path(__file__).parent
SERVICE = Address("service@example.org")
MESSAGE_ID = "<0123456789abcdef@example.org>"
_SECONDS = 60

File = tuple[str, str, str, bytes]
"""A file's name, type, content id and octets."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """The findings of a reader in a mail, in their order; differences that no reader keeps are left out."""

    subject: str
    people: Mapping[str, Sequence[tuple[str, str]]]
    headers: Sequence[tuple[str, str]]
    text: str
    html: str
    files: Sequence[File]


def _cases() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{file.stem}: {case.pop('why')}", case)
        for file in sorted(HERE.glob("corpus/*.toml"))
        for case in tomllib.loads(file.read_text("utf-8"))["mail"]
    ]


CASES = dict(_cases())


def _attachment(given: Mapping[str, Any]) -> Attachment:
    content = bytes.fromhex(given["hex"]) if "hex" in given else given["content"].encode()
    more = {name: given[name] for name in ("content_id", "alternative") if name in given}
    return Attachment(given["filename"], given.get("content_type", ""), content, **more)


def _draft(case: Mapping[str, Any]) -> Draft:
    fields = {"subject": "Hello", "text": "Hello Ada", **case}
    fields["headers"] = tuple((name, value) for name, value in fields.get("headers", ()))
    fields["attachments"] = tuple(_attachment(given) for given in fields.get("attachments", ()))
    return read_draft(from_=fields.pop("from", ""), **fields)


def _written(draft: Draft) -> Envelope:
    return compose(draft, draft.from_ or SERVICE, MESSAGE_ID, 1_700_000_000.0, LIMITS)


def _squeezed(text: str) -> str:
    """White space at either end of a header's text, and how much of it stands in between, means nothing."""
    return re.sub(r"[ \t]+", " ", text).strip(" ")


def _lines(text: str) -> str:
    """A text in lines, without its last line ends, of which readers keep another number."""
    return "\n".join(re.split(r"\r\n|\r|\n", text)).rstrip("\n")


def _same_lines(content: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\n", content).rstrip(b"\n")


def _given(draft: Draft) -> Read:
    """The findings that every reader should have."""
    people = {
        "from": (draft.from_ or SERVICE,),
        "to": draft.to,
        "cc": draft.cc,
        "reply-to": draft.reply_to,
    }
    return Read(
        subject=_squeezed(draft.subject),
        people={name: [(_squeezed(one.name), one.spec) for one in listed] for name, listed in people.items()},
        headers=[(name.lower(), _squeezed(value)) for name, value in draft.headers],
        text=_lines(draft.text),
        html=_lines(draft.html),
        files=sorted([_file_of(given) for given in draft.attachments], key=repr),
    )


def _file_of(given: Attachment) -> File:
    kind = given.media_type
    name = given.filename or ("" if given.alternative else "attachment")
    content = _same_lines(given.content) if kind.name == EMBEDDED or given.alternative else given.content
    return name, kind.name, given.content_id, content


# Python's reader.


def _read_by_python(octets: bytes) -> Read:
    message = message_from_bytes(octets, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    older = HeaderParser(policy=policy.compat32).parsestr(octets.decode())  # as text, for headers in UTF-8 (RFC 6532)
    text, html, files = "", "", []
    for part in _parts(message):
        if part.get_content_disposition() or part.get_content_type() not in {"text/plain", "text/html"}:
            files.append(_file_by_python(part))
        elif part.get_content_type() == "text/html":
            html = _lines(part.get_content())
        else:
            text = _lines(part.get_content())
    return Read(
        subject=_squeezed(str(message["Subject"])),
        people={name: _people_by_python(older.get_all(name, [])) for name in ("from", "to", "cc", "reply-to")},
        headers=[(name.lower(), _squeezed(_unfolded(value))) for name, value in older.items()],
        text=text,
        html=html,
        files=sorted(files, key=repr),
    )


def _parts(message: EmailMessage) -> list[EmailMessage]:
    """The parts of a mail; those of a mail in it are its own."""
    if not message.is_multipart() or message.get_content_type() == EMBEDDED:
        return [message]
    return [part for child in message.iter_parts() if isinstance(child, EmailMessage) for part in _parts(child)]


def _file_by_python(part: EmailMessage) -> File:
    kind = part.get_content_type()
    if kind == EMBEDDED:
        (mail,) = part.iter_parts()
        content = _same_lines(mail.as_bytes())
    else:
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        is_file = part.get_content_disposition() == "attachment" or "Content-ID" in part
        content = payload if is_file else _same_lines(payload)
    return part.get_filename() or "", kind, str(part["Content-ID"] or "").strip("<>"), content


def _people_by_python(fields: Sequence[str]) -> list[tuple[str, str]]:
    """Names and addresses, with adjacent encoded words joined (RFC 2047, 6.2), as `policy.SMTP` does not."""
    found = getaddresses([_unfolded(field) for field in fields])
    return [(_squeezed(str(make_header(decode_header(name)))), spec) for name, spec in found]


def _unfolded(value: str) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", value)


# Node's reader.


Reader = Callable[[Sequence[Draft]], list[Read]]


@pytest.fixture(scope="module")
def mailparser() -> Reader:
    """Return what reads many mails in one run."""
    command, folder = [program("node"), "read.mjs"], HERE / "node"
    install_modules(folder)

    def read(drafts: Sequence[Draft]) -> list[Read]:
        mails = b"\n".join([b64encode(_written(draft).content) for draft in drafts])
        done = subprocess.run(command, cwd=folder, input=mails, capture_output=True, timeout=_SECONDS, check=True)
        return [_by_node(json.loads(line)) for line in done.stdout.splitlines()]

    return read


@pytest.fixture(scope="module")
def read_by_node(mailparser: Reader) -> Mapping[str, Read]:
    """All mails of the corpus as mailparser reads them."""
    return dict(zip(CASES, mailparser([_draft(case) for case in CASES.values()]), strict=True))


def _by_node(read: Mapping[str, Any]) -> Read:
    people = {"from": read["from"], "to": read["to"], "cc": read["cc"], "reply-to": read["replyTo"]}
    return Read(
        subject=_squeezed(read["subject"] or ""),
        people={name: [_person_by_node(one) for one in listed] for name, listed in people.items()},
        headers=[(line["key"], _squeezed(_unfolded(line["line"]).partition(":")[2])) for line in read["lines"]],
        text=_lines(read["text"] or ""),
        html=_lines(read["html"] or ""),
        files=sorted([_file_by_node(file) for file in read["attachments"]], key=repr),
    )


def _person_by_node(one: Mapping[str, str]) -> tuple[str, str]:
    """Name and address; the reader shows a domain in its own letters."""
    return _squeezed(one["name"]), parse_address(one["address"], "").spec


def _file_by_node(file: Mapping[str, Any]) -> File:
    content = b64decode(file["content"])
    if file["contentType"] == EMBEDDED or not file["disposition"]:
        content = _same_lines(content)
    kind = DEFAULT_TYPE if file["guessed"] else file["contentType"]
    return file["filename"] or "", kind, (file["contentId"] or "").strip("<>"), content


# Both.


def _assert_read(read: Read, draft: Draft) -> None:
    given = _given(draft)
    assert read.subject == given.subject
    assert read.people == given.people
    assert (read.text, read.html) == (given.text, given.html)
    assert list(read.files) == list(given.files)
    names = {name for name, _ in given.headers}
    written = [(name, make_header(decode_header(value))) for name, value in read.headers if name in names]
    assert [(name, _squeezed(str(value))) for name, value in written] == list(given.headers)


@pytest.mark.parametrize("name", CASES)
def test_a_mail_as_python_reads_it(name: str) -> None:
    """Python's parser finds what was given, no defect, and no header that was not."""
    draft = _draft(CASES[name])
    read = _read_by_python(_written(draft).content)
    _assert_read(read, draft)
    assert "bcc" not in dict(read.headers)


@pytest.mark.parametrize("name", CASES)
def test_a_mail_as_mailparser_reads_it(name: str, read_by_node: Mapping[str, Read]) -> None:
    """A parser in another language finds the same."""
    _assert_read(read_by_node[name], _draft(CASES[name]))


_SIGNS = st.sampled_from(
    [*"aB1 .-_()=?*'%\"\\;:<>@/,[]{}#&+$!~^`|éß你😀\u00a0\u200b\u202e", "=?utf-8?q?a?=", "=?", "?="]
)
_WORDS = st.lists(_SIGNS, min_size=1, max_size=80).map("".join)
_LETTERS = st.text("éß你😀aé ", min_size=1, max_size=80)
_TEXTS = st.one_of(_WORDS, _LETTERS)


@st.composite
def _drafts(draw: st.DrawFn) -> Draft:
    file = Attachment(draw(_TEXTS), "application/x-a", draw(st.binary(max_size=80)))
    return Draft(
        limits=LIMITS,
        to=(Address("ada@example.org", draw(_TEXTS)), Address("b@x.org"), Address('"c d"@x.org', draw(_TEXTS))),
        subject=draw(_TEXTS),
        text=draw(_TEXTS) + "\x0b\x92\r.\n" + draw(_TEXTS),
        html=draw(_TEXTS),
        headers=(("X-" + "a" * draw(st.integers(1, 62)), draw(_TEXTS)),),
        attachments=(file,),
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(st.lists(_drafts(), min_size=10, max_size=30))
def test_any_mail_as_mailparser_reads_it(mailparser: Reader, drafts: list[Draft]) -> None:
    """Signs that mean something to a parser, in any order, are read as they were given."""
    for draft, read in zip(drafts, mailparser(drafts), strict=True):
        _assert_read(read, draft)


@pytest.mark.parametrize("name", CASES)
def test_the_lines_of_a_mail(name: str) -> None:
    """No line has more than 998 octets, and none with an encoded word more than 76 (RFC 5322, 2.1.1; RFC 2047, 2)."""
    envelope = _written(_draft(CASES[name]))
    lines = envelope.content.split(b"\r\n")
    assert not re.search(rb"[\r\n\0]", b"".join(lines))
    assert max(map(len, lines)) <= 998
    head = envelope.content.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert max([len(line) for line in head if "=?utf-8?b?" in line], default=0) <= 76
    assert envelope.content.isascii() or envelope.smtputf8 or b"Content-Transfer-Encoding: 8bit" in envelope.content


def test_each_case_is_one_of_its_own() -> None:
    """No case is lost behind another one with the same words."""
    assert len(CASES) == len(_cases())
