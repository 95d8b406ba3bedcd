"""Feeds octets to what reads addresses, mails and replies, and checks what comes out: for Hypothesis and atheris."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from drafts import LIMITS, read_draft
from otpmail.address import MAX_OCTETS, Address, parse_address, parse_mailbox
from otpmail.compose.attachment import Attachment
from otpmail.compose.message import compose
from otpmail.errors import InvalidArgument
from otpmail.smtp import commands
from otpmail.smtp.redaction import MAX_TEXT, shows
from otpmail.smtp.replies import MalformedReply, Reply, ReplyReader, describe, result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SENDER = Address("codes@example.org", "Codes")
_BETWEEN = "\x1f"  # separates the fields of a mail; no field may hold it
_FIELDS = ("to", "subject", "text", "html", "header", "value", "filename", "content_type", "content_id")
_OURS = {
    *(b"from", b"to", b"subject", b"date", b"message-id", b"mime-version"),
    *(b"content-type", b"content-transfer-encoding"),
}
_LONGEST_LINE = 998  # octets (RFC 5322, 2.1.1)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_CODE = "48291357"


def read_address(octets: bytes) -> None:
    """Any text is refused, or is a mailbox that ends no line, path or command, and is read the same again."""
    try:
        address = parse_mailbox(octets.decode("utf-8", "surrogateescape"), "to")
    except InvalidArgument:
        return
    assert not _CONTROL.search(address.spec + address.name)
    assert not set("<>") & set(address.spec)
    assert address.spec.count("@") == 1
    assert address.domain.isascii()
    assert len(address.spec.encode()) <= MAX_OCTETS
    again = parse_address(address.spec, "to")
    assert (again.spec, again.key) == (address.spec, address.key)


def write_mail(octets: bytes) -> None:
    """Any fields are refused, or make a mail with the headers that were asked for, in lines that a relay takes."""
    texts = octets.decode("utf-8", "surrogateescape").split(_BETWEEN, len(_FIELDS) - 1)
    fields = dict(zip(_FIELDS, [*texts, *[""] * len(_FIELDS)], strict=False))
    name = fields["header"]
    try:
        draft = read_draft(
            to=[fields["to"] or "ada@example.org"],
            subject=fields["subject"],
            text=fields["text"],
            html=fields["html"],
            headers=((name, fields["value"]),) if name else (),
            attachments=_files(fields),
        )
        envelope = compose(draft, _SENDER, "<1@example.org>", 0.0, LIMITS)
    except InvalidArgument:
        return
    assert len(envelope.recipients) == 1
    assert not _BARE.search(envelope.content)
    lines = envelope.content.split(b"\r\n")
    assert max(map(len, lines)) <= _LONGEST_LINE
    stuffed = commands.stuffed(envelope.content)
    assert (b"\r\n" + stuffed).index(b"\r\n.\r\n") == len(stuffed) - 3  # the end of the data stands there alone
    head = lines[: lines.index(b"")]
    names = [line.partition(b":")[0].lower() for line in head if line[:1] not in (b" ", b"\t")]
    assert len(names) == len(set(names))
    assert set(names) <= _OURS | {name.lower().encode()}


def _files(fields: Mapping[str, str]) -> tuple[Attachment, ...]:
    if not (fields["filename"] or fields["content_type"]):
        return ()
    return (Attachment(fields["filename"], fields["content_type"], b"x", fields["content_id"]),)


def read_replies(octets: bytes) -> None:
    """Any octets are the same replies in pieces of any size; each is a short line for people, without the mail's code.

    The first octet is the size of the pieces.
    """
    size, stream = octets[:1], octets[1:]
    step = max(1, size[0] if size else 1)
    whole = _read([stream])
    assert _read([stream[start : start + step] for start in range(0, len(stream), step)]) == whole
    for reply in whole[0]:
        found = result("ada@example.org", reply, code=_CODE)
        told = describe(reply, codes=(_CODE,))
        for text in (found.reply, told):
            assert text.isprintable()
            assert len(text) <= 2 * MAX_TEXT
            assert not shows(text, (_CODE,))


def _read(pieces: Sequence[bytes]) -> tuple[list[Reply], str]:
    reader, replies = ReplyReader(), list[Reply]()
    try:
        for piece in pieces:
            reader.feed(piece, replies)
    except MalformedReply as error:
        return replies, str(error)
    return replies, ""


PARSERS: dict[str, Callable[[bytes], None]] = {
    "address": read_address,
    "mail": write_mail,
    "replies": read_replies,
}

SEEDS: dict[str, Sequence[bytes]] = {
    "address": (
        b"Ada <ada@example.org>",
        b'"a b"@example.org',
        "zo\u00eb@b\u00fccher.example".encode(),
        b"%20a@b.test.",
    ),
    "mail": (
        b"ada@example.org\x1fHello\x1fHi\r\n.\r\n\x1f<p>Hi</p>\x1fX-A\x1fv\x1fa.txt\x1ftext/plain; charset=utf-8\x1fc",
        "Ada <ada@example.org>\x1f=?utf-8?q?a?= \u00fc\x1f\x1f\x1fList-Unsubscribe\x1f<https://x.test/>\x1f\u00e9".encode(),
    ),
    "replies": (b"\x05250-2.0.0 a\r\n250 2.0.0 ok\r\n", b"\x01550 5.7.1 4829-1357\r\n354 go\r\n421 bye\r\n"),
}
"""Inputs that go far, from which atheris begins."""
