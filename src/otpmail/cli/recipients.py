"""A mail merge before it is sent: a CSV file and a template, checked whole, and the request that each row makes.

What can be found wrong here is found before the first mail goes. Nothing here calls a service.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from otpmail.address import Address, parse_mailbox
from otpmail.errors import InvalidArgument
from otpmail.mail.draft import Draft, Limits, check
from otpmail.mail.templates import MailTemplate
from otpmail.v1 import mail_pb2
from otpmail.values import frozen

EMAIL = "email"
_MOST_PROBLEMS = 100
_SENDER = Address("sender@example.org")  # who it is from is the service's to say; here only rows are checked
_LIMITS = Limits(size=150 << 20, recipients=1)  # what MAIL_MAX_BYTES may be at most
_FIELDS = {"to[0]": EMAIL}


class MergeError(Exception):
    """File, template or rows are not what they may be: a line for each fault in `problems`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@frozen()
class Row:
    """One row, by its number as a spreadsheet has it (the header is 1), and its mail."""

    number: int
    email: str
    request: mail_pb2.SendMailRequest


@frozen()
class Recipients:
    """Rows that are known to be good, each mail once. `repeated`: rows that would be second copies, and of which."""

    source: str
    columns: tuple[str, ...]
    template: MailTemplate
    sender: str
    reply_to: str
    total: int = 0
    repeated: tuple[tuple[int, int], ...] = ()

    @classmethod
    def load(cls, file: Path, template: Path, *, sender: str = "", reply_to: str = "") -> Self:
        """Read and check everything. Raises MergeError with a line for each thing that is wrong."""
        _check_options({"--from": sender, "--reply-to": reply_to})
        source, compiled = _text(file), _template(template)
        columns = _columns(file, source)
        unknown = sorted(compiled.names - set(columns))
        if unknown:
            known = ", ".join(filter(None, columns))
            raise MergeError(*(f"{template}: ${name}: {file} has no such column; it has {known}" for name in unknown))
        read = cls(source, columns, compiled, sender, reply_to)
        total, repeated = read._checked(file)
        return cls(source, columns, compiled, sender, reply_to, total, repeated)

    def rows(self) -> Iterator[Row]:
        """Each row that makes a mail of its own."""
        copies = {number for number, _ in self.repeated}
        for number, fields in _records(self.source):
            if number not in copies:
                draft = self._draft(fields)
                yield Row(number, draft.to[0], _request(draft, self.sender))

    def _checked(self, file: Path) -> tuple[int, tuple[tuple[int, int], ...]]:
        problems: list[str] = []
        seen: dict[str, int] = {}
        repeated = []
        try:
            for number, fields in _records(self.source):
                problem = self._problem(fields)
                if problem:
                    problems.append(f"{file}: row {number}: {problem}")
                    continue
                first = seen.setdefault(_digest(self._draft(fields), self.sender), number)
                if first != number:
                    repeated.append((number, first))
        except csv.Error as error:
            problems.append(f"{file}: can't be read as CSV: {error}")
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            raise MergeError(*problems[:_MOST_PROBLEMS], *([f"... and {more} more rows"] if more > 0 else []))
        if not seen:
            raise MergeError(f"{file}: has no rows below its header")
        return len(seen), tuple(repeated)

    def _problem(self, fields: list[str]) -> str:
        if len(fields) != len(self.columns):
            return f"has {len(fields)} fields, where the header has {len(self.columns)}"
        try:
            check(self._draft(fields), sender=_SENDER, limits=_LIMITS)
        except InvalidArgument as error:
            return f"{_FIELDS.get(error.field, error.field)}: {error.description}"
        return ""

    def _draft(self, fields: list[str]) -> Draft:
        values = dict(zip(self.columns, fields, strict=True))
        mail = self.template.render(values)
        to = (values[EMAIL].strip(),)
        return Draft(to=to, subject=mail.subject, text=mail.text, html=mail.html, reply_to=self.reply_to)


def _check_options(mailboxes: dict[str, str]) -> None:
    for option, mailbox in mailboxes.items():
        try:
            if mailbox:
                parse_mailbox(mailbox, option)
        except InvalidArgument as error:
            raise MergeError(str(error)) from None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise MergeError(f"{file}: is not text in UTF-8: {error.reason} at octet {error.start}") from None
    except OSError as error:
        raise MergeError(f"{file}: can't be read: {error.strerror}") from None


def _template(folder: Path) -> MailTemplate:
    try:
        return MailTemplate.read(folder)
    except OSError as error:
        raise MergeError(f"{error.filename or folder}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MergeError(f"{folder}: is not text in UTF-8") from None
    except ValueError as error:
        raise MergeError(f"{folder}: {error}") from None


def _columns(file: Path, source: str) -> tuple[str, ...]:
    try:
        columns = tuple(name.strip() for name in next(csv.reader(io.StringIO(source, newline=""), strict=True), ()))
    except csv.Error as error:
        raise MergeError(f"{file}: can't be read as CSV: {error}") from None
    named = [name for name in columns if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise MergeError(*(f"{file}: the column {name} stands twice" for name in twice))
    if EMAIL not in columns:
        raise MergeError(f"{file}: has no column {EMAIL}; the first row names the columns, with commas between them")
    return columns


def _records(source: str) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header by their numbers; empty ones are passed over."""
    records = csv.reader(io.StringIO(source, newline=""), strict=True)
    for number, fields in enumerate(records, 1):
        if number > 1 and fields:
            yield number, fields


def _request(draft: Draft, sender: str) -> mail_pb2.SendMailRequest:
    request = mail_pb2.SendMailRequest(
        to=draft.to,
        subject=draft.subject,
        text=draft.text,
        html=draft.html,
        reply_to=draft.reply_to,
        priority=mail_pb2.PRIORITY_BULK,
        wait_for=mail_pb2.WAIT_FOR_RELAY,
        request_id=f"merge-{_digest(draft, sender)}",
    )
    setattr(request, "from", sender)  # a keyword in Python
    return request


def _digest(draft: Draft, sender: str) -> str:
    """What tells one mail from another: all that is in it, and so the row and the template as far as they show.

    Not the file: whoever corrects a row and sends the file again must not mail everybody else twice.
    """
    content = json.dumps([draft.to, draft.subject, draft.text, draft.html, draft.reply_to, sender])
    return hashlib.sha256(content.encode()).hexdigest()[:40]
