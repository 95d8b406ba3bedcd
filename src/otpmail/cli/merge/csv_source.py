"""The input of a merge: a CSV file and a template, checked whole, and the request that each row makes.

Every error that can be found here is found before the first mail is sent. Nothing here calls a service.
"""

import csv
import hashlib
import io
import json
from collections.abc import Container, Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import Self

from otpmail.address import Address, parse_mailbox
from otpmail.compose.draft import Draft, Limits
from otpmail.compose.templates import MailTemplate
from otpmail.counts import counted
from otpmail.errors import InvalidArgument
from otpmail.v1 import mail_pb2
from otpmail.values import frozen

EMAIL = "email"
_ENCODING = "utf-8-sig"  # spreadsheets write a byte order mark
_MOST_PROBLEMS = 100
_MOST_SHOWN = 200  # characters of a first row without a column email: it may be any text
_DIGEST_OCTETS = 20
_ANYBODY = Address("anybody@example.org")  # stands for the recipient where only texts are checked
_LIMITS = Limits(size=150 << 20, recipients=1)  # the highest MAIL_MAX_BYTES that a service can have


class MergeError(Exception):
    """The file, the template, a row or an option is wrong: `problems` has one line for each error."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@frozen()
class Row:
    """One row and its mail. `number` is that of a spreadsheet, where the header is row 1."""

    number: int
    email: str
    request: mail_pb2.SendMailRequest = field(repr=False)


@frozen()
class Recipients:
    """Checked rows, each mail once. `repeated` pairs a row that makes an earlier row's mail with that earlier row.

    For each row only a digest is kept, and the mail is rendered when it is sent: a file may have a million rows.
    """

    file: Path
    content: bytes = field(repr=False)  # of the file, read once: the checked rows are sent, even if it changes
    columns: tuple[str, ...]
    names: tuple[str, ...]  # of the columns that the template uses
    template: MailTemplate
    sender: str
    reply_to: str
    digests: bytes = b""  # of each mail, in the order of the rows
    repeated: tuple[tuple[int, int], ...] = ()

    @classmethod
    def load(cls, file: Path, template: Path, *, sender: str = "", reply_to: str = "") -> Self:
        """Read and check everything. Raises MergeError with one line for each error."""
        _check_options({"--from": sender, "--reply-to": reply_to})
        content, compiled = _content(file), _template(template)
        columns = _columns(file, content)
        unknown = sorted(compiled.names - set(columns))
        if unknown:
            known = ", ".join(filter(None, columns))
            raise MergeError(
                *(f"{template}: ${name}: {file} has no column {name}; its columns are {known}" for name in unknown)
            )
        read = cls(file, content, columns, tuple(sorted(compiled.names)), compiled, sender, reply_to)
        return read._checked()

    @property
    def total(self) -> int:
        """How many mails there are."""
        return len(self.digests) // _DIGEST_OCTETS

    def request_ids(self) -> Iterator[str]:
        """The request id of each mail, in the order of the rows.

        It is a digest of everything that makes the mail: the template, the address, the values in it. It is not one of
        the file: a person who corrects a row and sends the file again must not mail all others twice.
        """
        for place in range(0, len(self.digests), _DIGEST_OCTETS):
            yield f"merge-{self.digests[place : place + _DIGEST_OCTETS].hex()}"

    def rows(self, *, without: Container[str] = ()) -> Iterator[Row]:
        """Render each row that makes a mail of its own, except those whose request id is in `without`."""
        copies = {number for number, _ in self.repeated}
        ids = self.request_ids()
        for number, fields in _records(self.content):
            if number not in copies and (request_id := next(ids)) not in without:
                values = self._values(fields)
                yield Row(number, _to(values), self._request(values, request_id))

    def _checked(self) -> Self:
        """Check every row; return these recipients with their digests. Raises MergeError."""
        problems: list[str] = []
        wrong = 0
        same = self._same_in_all()
        seen: dict[bytes, int] = {}
        repeated = []
        try:
            for number, fields in _records(self.content):
                if problem := self._problem(fields):
                    wrong += 1
                    if wrong <= _MOST_PROBLEMS:
                        problems.append(f"{self.file}: row {number}: {problem}")
                    continue
                first = seen.setdefault(self._digest(same, fields), number)
                if first != number:
                    repeated.append((number, first))
        except csv.Error as error:
            problems.append(f"{self.file}: cannot be read as CSV: {error}")
        if problems:
            more = wrong - _MOST_PROBLEMS
            raise MergeError(*problems, *([f"... and {counted(more, 'more row')}"] if more > 0 else []))
        if not seen:
            raise MergeError(f"{self.file}: has no rows below its header")
        return replace(self, digests=b"".join(seen), repeated=tuple(repeated))

    def _problem(self, fields: list[str]) -> str:
        """Check a row's values by the service's own rules; return what is wrong, empty for nothing."""
        if len(fields) != len(self.columns):
            return f"has {len(fields)} fields, but the header has {len(self.columns)}"
        values = self._values(fields)
        used = [values[name] for name in self.names]
        try:
            recipient = parse_mailbox(_to(values), EMAIL)
        except InvalidArgument as error:
            return str(error)
        fault = _fault(recipient, subject=self.template.subject % values, text="\n".join(used))
        if fault is None:
            return ""
        at_fault = (name for name in self.names if fault.field == "text" and _fault(_ANYBODY, text=values[name]))
        return f"{next(at_fault, fault.field)}: {fault.description}"

    def _values(self, fields: list[str]) -> dict[str, str]:
        return dict(zip(self.columns, fields, strict=True))

    def _same_in_all(self) -> "hashlib._Hash":
        template = self.template
        same = [template.subject, template.text, template.html, self.reply_to, self.sender]
        return hashlib.sha256(json.dumps(same).encode())

    def _digest(self, same: "hashlib._Hash", fields: list[str]) -> bytes:
        values = self._values(fields)
        digest = same.copy()
        digest.update(json.dumps([_to(values), *(values[name] for name in self.names)]).encode())
        return digest.digest()[:_DIGEST_OCTETS]

    def _request(self, values: dict[str, str], request_id: str) -> mail_pb2.SendMailRequest:
        mail = self.template.render(values)
        request = mail_pb2.SendMailRequest(
            to=[_to(values)],
            subject=mail.subject,
            text=mail.text,
            html=mail.html,
            reply_to=[self.reply_to] if self.reply_to else (),
            priority=mail_pb2.PRIORITY_BULK,
            wait_for=mail_pb2.WAIT_FOR_RELAY,
            request_id=request_id,
        )
        setattr(request, "from", self.sender)  # a keyword in Python
        return request


def _to(values: dict[str, str]) -> str:
    return values[EMAIL].strip()


def _fault(to: Address, *, subject: str = "", text: str = "", html: str = "") -> InvalidArgument | None:
    try:
        Draft(limits=_LIMITS, to=(to,), subject=subject, text=text, html=html)
    except InvalidArgument as error:
        return error
    return None


def _check_options(mailboxes: dict[str, str]) -> None:
    for option, mailbox in mailboxes.items():
        try:
            if mailbox:
                parse_mailbox(mailbox, option)
        except InvalidArgument as error:
            raise MergeError(str(error)) from None


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        content.decode(_ENCODING)
    except UnicodeDecodeError as error:
        raise MergeError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise MergeError(f"{file}: cannot be read: {error.strerror}") from None
    return content


def _template(folder: Path) -> MailTemplate:
    try:
        template = MailTemplate.read(folder)
    except ValueError as error:
        raise MergeError(f"{folder}: {error}") from None
    own = template.render(dict.fromkeys(template.names, ""))
    if fault := _fault(_ANYBODY, subject=own.subject, text=own.text, html=own.html):
        raise MergeError(f"{folder}: {fault}")
    return template


def _columns(file: Path, content: bytes) -> tuple[str, ...]:
    try:
        columns = tuple(name.strip() for name in next(_table(content), ()))
    except csv.Error as error:
        raise MergeError(f"{file}: cannot be read as CSV: {error}") from None
    named = [name for name in columns if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise MergeError(*(f"{file}: the header names the column {name} twice" for name in twice))
    if EMAIL not in columns:
        raise MergeError(f"{file}: has no column {EMAIL}{_hint(named)}")
    return columns


def _hint(named: list[str]) -> str:
    """Say what the first row has in place of the column email, and how to correct the usual mistakes."""
    if not named:
        return "; its first row, which names the columns, is empty"
    header = ", ".join(named)
    for separator, plural in {";": "semicolons", "\t": "tabs"}.items():
        if len(named) == 1 and separator in header:
            return f"; the columns seem to be separated by {plural}: save the file with commas"
    for name in named:
        if "mail" in name.casefold():
            return f"; if {name!r} is that column, rename it to {EMAIL}"
    return f"; its first row, which names the columns, has {header[:_MOST_SHOWN]}"


def _table(content: bytes) -> Iterator[list[str]]:
    return csv.reader(io.TextIOWrapper(io.BytesIO(content), _ENCODING, newline=""), strict=True)


def _records(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header with their numbers; empty rows are left out."""
    for number, fields in enumerate(_table(content), 1):
        if number > 1 and fields:
            yield number, fields
