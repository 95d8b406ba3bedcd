"""The input of a merge: each error in a file, a template or a row is found before sending, with one line each."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from otpmail.cli.merge.csv_source import MergeError, Recipients
from otpmail.compose.templates import MailTemplate, Rendered
from otpmail.v1 import mail_pb2


class Files:
    """A template and a CSV file."""

    def __init__(self, folder: Path) -> None:
        self.csv = folder / "people.csv"
        self.template = folder / "spring"
        self.template.mkdir()
        self.write("subject.txt", "Hello $name")
        self.write("body.txt", "Dear $name,\nit costs $$5.")
        self.people("email,name", "ada@example.org,Ada")

    def write(self, name: str, text: str) -> None:
        """Write a part of the template."""
        (self.template / name).write_text(text, "utf-8")

    def people(self, *rows: str, end: str = "\n", encoding: str = "utf-8") -> None:
        """Write the file."""
        self.csv.write_bytes("".join(f"{row}{end}" for row in rows).encode(encoding))

    def load(self, **more: Any) -> Recipients:
        """Read both."""
        return Recipients.load(self.csv, self.template, **more)

    def problems(self, **more: Any) -> list[str]:
        """The errors that reading both finds, with paths cut to names."""
        with pytest.raises(MergeError) as caught:
            self.load(**more)
        return [problem.replace(f"{self.csv.parent}/", "") for problem in caught.value.problems]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A merge without errors."""
    return Files(tmp_path)


def test_a_row_makes_a_mail(files: Files) -> None:
    """Columns fill the template, escaped in the HTML only; the request waits for the relay, with bulk priority."""
    files.write("body.html", "<p>Dear $name</p>")
    files.people("name, email ,unused", 'A & B,"Ada <ada@example.org>",x')
    recipients = files.load(sender="shop@example.org", reply_to="help@example.org")
    (row,) = recipients.rows()
    assert (row.number, row.email) == (2, "Ada <ada@example.org>")
    request_id = row.request.request_id
    assert request_id.startswith("merge-")
    expected = mail_pb2.SendMailRequest(
        to=["Ada <ada@example.org>"],
        subject="Hello A & B",
        text="Dear A & B,\nit costs $5.",
        html="<p>Dear A &amp; B</p>",
        reply_to=["help@example.org"],
        priority=mail_pb2.PRIORITY_BULK,
        wait_for=mail_pb2.WAIT_FOR_RELAY,
        request_id=request_id,
    )
    setattr(expected, "from", "shop@example.org")
    assert row.request == expected


@pytest.mark.parametrize("part", ["body.txt", "body.html"])
def test_text_or_html_is_enough(files: Files, part: str) -> None:
    """A template needs one of the two bodies."""
    (files.template / "body.txt").unlink()
    files.write(part, "Dear $name")
    (row,) = files.load().rows()
    assert sorted((row.request.text, row.request.html)) == ["", "Dear Ada"]


def test_what_spreadsheets_write(files: Files) -> None:
    """With a byte order mark, CRLF, fields of several lines and empty rows, rows have the numbers of a spreadsheet."""
    files.write("subject.txt", "Hello")
    files.people("email,name", '"ada@example.org","A,\nB"', "", "grace@example.org,Gra\u2028ce", end="\r\n")
    files.csv.write_bytes(b"\xef\xbb\xbf" + files.csv.read_bytes())
    assert [(row.number, row.request.text) for row in files.load().rows()] == [
        (2, "Dear A,\nB,\nit costs $5."),
        (4, "Dear Gra\u2028ce,\nit costs $5."),
    ]


def test_the_request_id_says_what_is_in_the_mail(files: Files) -> None:
    """A request id stays when other rows or unused columns change; it changes with everything that the mail shows."""

    def request_id() -> str:
        return next(row.request.request_id for row in files.load().rows() if "ada" in row.email)

    first = request_id()
    files.people("email,extra,name", "grace@example.org,1,Grace", "ada@example.org,2,Ada")
    assert request_id() == first
    ids = {first}
    files.people("email,name", "ada@example.org,Adah")
    ids.add(request_id())
    files.write("body.txt", "other")
    ids.add(request_id())
    files.write("body.html", "other")
    ids.add(request_id())
    ids |= {row.request.request_id for row in files.load(sender="a@b.org").rows()}
    ids |= {row.request.request_id for row in files.load(reply_to="a@b.org").rows()}
    assert len(ids) == 6


def test_the_same_mail_twice(files: Files) -> None:
    """A repeated mail is made once, and both rows are named; another text to the same address is another mail."""
    files.people(
        "email,name", "ada@example.org,Ada", "ada@example.org,Adah", "ada@example.org,Ada", "ada@example.org,Ada"
    )
    recipients = files.load()
    assert (recipients.total, recipients.repeated) == (2, ((4, 2), (5, 2)))
    assert [row.number for row in recipients.rows()] == [2, 3]


def test_every_bad_row_is_named(files: Files) -> None:
    """Each bad row has a line with its number and its field; after a hundred lines the rest are counted."""
    files.people("email,name", "nobody,Ada", ",Ada", "ada@example.org", "a@b.org,Ada,x", '"a@b.org","A\nB"')
    problems = files.problems()
    assert problems[0].startswith("people.csv: row 2: email: is not a mailbox address")
    assert problems[1:] == [
        "people.csv: row 3: email: is empty",
        "people.csv: row 4: has 1 fields, but the header has 2",
        "people.csv: row 5: has 3 fields, but the header has 2",
        "people.csv: row 6: subject: holds the control character U+000A",
    ]
    files.people("email,name", *(["nobody,x"] * 130))
    assert len(files.problems()) == 101
    assert files.problems()[-1] == "... and 30 more rows"


def test_a_forbidden_character_is_reported_with_its_column(files: Files) -> None:
    """The column is what a person can correct; a column that the template does not use may have any value."""
    files.people("email,name,note", "a@b.org,A\0B,\0", "a@b.org,Ada,\0")
    files.write("subject.txt", "Hello")
    files.write("body.html", "<p>$name</p>")
    assert files.problems() == ["people.csv: row 2: name: holds the control character U+0000"]


def test_a_row_is_rendered_once_and_in_its_turn(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source renders a row when it is its turn: neither the check nor the search for repeated rows renders one."""
    rendered = []
    render = MailTemplate.render

    def counted(template: MailTemplate, values: Mapping[str, str]) -> Rendered:
        rendered.append(values["name"])
        return render(template, values)

    monkeypatch.setattr(MailTemplate, "render", counted)
    files.people("email,name", *(f"p{number}@example.org,P{number}" for number in range(5)))
    recipients = files.load()
    assert rendered == [""]  # the template alone, to check it
    rows = recipients.rows()
    assert [next(rows).number for _ in range(3)] == [2, 3, 4]
    assert rendered == ["", "P0", "P1", "P2"]


def test_a_check_keeps_no_mails(files: Files) -> None:
    """A check needs memory for the file and for a digest of each row, and for no mail."""
    files.write("body.txt", "$name " + "x" * 20_000)
    files.people("email,name", *(f"p{number}@example.org,P{number}" for number in range(2_000)))
    tracemalloc.start()
    try:
        assert files.load().total == 2_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_bad_files(files: Files) -> None:
    """A file is missing, is not UTF-8, has a column twice, no rows, or broken quotes: each has its own message."""
    for rows, said in (
        (("email,name,name", "a,b,c"), "people.csv: the header names the column name twice"),
        (("email,name",), "people.csv: has no rows below its header"),
        (("email,name", 'ada@example.org,"A"x'), "people.csv: cannot be read as CSV: ',' expected after '\"'"),
        (('"email"x,name', ""), "people.csv: cannot be read as CSV: ',' expected after '\"'"),
    ):
        files.people(*rows)
        assert files.problems() == [said]
    files.people("email,name", "ada@example.org,Zoë", encoding="latin-1")
    assert files.problems() == ["people.csv: is not UTF-8 text: invalid continuation byte at byte 29"]
    files.csv.unlink()
    assert files.problems() == ["people.csv: cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("name;email", "the columns seem to be separated by semicolons: save the file with commas"),
        ("Email;Name", "the columns seem to be separated by semicolons: save the file with commas"),
        ("email\tname", "the columns seem to be separated by tabs: save the file with commas"),
        ("name,Email", "if 'Email' is that column, rename it to email"),
        ("E-Mail,name", "if 'E-Mail' is that column, rename it to email"),
        ("name,city", "its first row, which names the columns, has name, city"),
        ("x" * 300, f"its first row, which names the columns, has {'x' * 200}"),
        ("", "its first row, which names the columns, is empty"),
    ],
)
def test_no_column_email(files: Files, header: str, hint: str) -> None:
    """Without a column email, the message says how to correct the usual mistakes, or else what the header has."""
    files.people(header, "ada@example.org,Ada")
    assert files.problems() == [f"people.csv: has no column email; {hint}"]


def test_bad_templates(files: Files) -> None:
    """An error in the template is one line, and not one for each row."""
    files.write("body.html", "$nmae ${city} $name")
    assert files.problems() == [
        "spring: $city: people.csv has no column city; its columns are email, name",
        "spring: $nmae: people.csv has no column nmae; its columns are email, name",
    ]
    files.write("body.html", "$name \0")
    assert files.problems() == ["spring: html: holds the control character U+0000"]
    files.write("body.html", "only $5")
    assert files.problems() == ["spring: body.html:1: has a $ that begins no name; write $$ for a dollar sign"]
    files.write("subject.txt", "one\ntwo")
    assert files.problems() == ["spring: subject.txt has more than one line"]
    (files.template / "subject.txt").write_bytes(b"\xff")
    assert files.problems() == ["spring: subject.txt:1: is not text in UTF-8"]
    (files.template / "subject.txt").unlink()
    assert files.problems() == ["spring: subject.txt is missing"]


@pytest.mark.parametrize(("option", "name"), [("sender", "--from"), ("reply_to", "--reply-to")])
def test_bad_options_are_reported_once(files: Files, option: str, name: str) -> None:
    """An error in an option is one line with the option's name, and not one for each row."""
    (problem,) = files.problems(**{option: "nobody"})
    assert problem.startswith(f"{name}: is not a mailbox address")
