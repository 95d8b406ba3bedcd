"""A mail merge before it is sent: what is wrong with a file, a template or a row is found here, one line each."""

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
        """What is said to be wrong, paths cut to names."""
        with pytest.raises(MergeError) as caught:
            self.load(**more)
        return [problem.replace(f"{self.csv.parent}/", "") for problem in caught.value.problems]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A merge that is good."""
    return Files(tmp_path)


def test_a_row_makes_a_mail(files: Files) -> None:
    """Columns fill the template, escaped in the HTML only; it waits for the relay, as bulk."""
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
        reply_to="help@example.org",
        priority=mail_pb2.PRIORITY_BULK,
        wait_for=mail_pb2.WAIT_FOR_RELAY,
        request_id=request_id,
    )
    setattr(expected, "from", "shop@example.org")
    assert row.request == expected


@pytest.mark.parametrize("part", ["body.txt", "body.html"])
def test_text_or_html_is_enough(files: Files, part: str) -> None:
    """One of the two bodies may be missing."""
    (files.template / "body.txt").unlink()
    files.write(part, "Dear $name")
    (row,) = files.load().rows()
    assert sorted((row.request.text, row.request.html)) == ["", "Dear Ada"]


def test_what_spreadsheets_write(files: Files) -> None:
    """A byte order mark, CRLF, quoted fields of several lines, empty rows: rows count as a spreadsheet counts them."""
    files.write("subject.txt", "Hello")
    files.people("email,name", '"ada@example.org","A,\nB"', "", "grace@example.org,Gra\u2028ce", end="\r\n")
    files.csv.write_bytes(b"\xef\xbb\xbf" + files.csv.read_bytes())
    assert [(row.number, row.request.text) for row in files.load().rows()] == [
        (2, "Dear A,\nB,\nit costs $5."),
        (4, "Dear Gra\u2028ce,\nit costs $5."),
    ]


def test_the_request_id_says_what_is_in_the_mail(files: Files) -> None:
    """It stays when other rows or unused columns change, and changes with anything that the mail shows."""

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
    """It is made once, and told with both rows; to one address with other words it is another mail."""
    files.people(
        "email,name", "ada@example.org,Ada", "ada@example.org,Adah", "ada@example.org,Ada", "ada@example.org,Ada"
    )
    recipients = files.load()
    assert (recipients.total, recipients.repeated) == (2, ((4, 2), (5, 2)))
    assert [row.number for row in recipients.rows()] == [2, 3]


def test_bad_rows_are_all_told(files: Files) -> None:
    """Each by its number and its field, before anything is sent; past a hundred they are counted."""
    files.people("email,name", "nobody,Ada", ",Ada", "ada@example.org", "a@b.org,Ada,x", '"a@b.org","A\nB"')
    problems = files.problems()
    assert problems[0].startswith("people.csv: row 2: email: is not a mailbox address")
    assert problems[1:] == [
        "people.csv: row 3: email: is empty",
        "people.csv: row 4: has 1 fields, where the header has 2",
        "people.csv: row 5: has 3 fields, where the header has 2",
        "people.csv: row 6: subject: holds the control character U+000A",
    ]
    files.people("email,name", *(["nobody,x"] * 130))
    assert len(files.problems()) == 101
    assert files.problems()[-1] == "... and 30 more rows"


def test_a_value_that_no_mail_may_hold_is_told_by_its_column(files: Files) -> None:
    """That is what can be mended; a column that the template does not show may hold what it likes."""
    files.people("email,name,note", "a@b.org,A\0B,\0", "a@b.org,Ada,\0")
    files.write("subject.txt", "Hello")
    files.write("body.html", "<p>$name</p>")
    assert files.problems() == ["people.csv: row 2: name: holds the control character U+0000"]


def test_a_row_is_rendered_once_and_in_its_turn(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be checked, nor to be told from others: there may be a million, most of them with who has the mail."""
    rendered = []
    render = MailTemplate.render

    def counted(template: MailTemplate, values: Mapping[str, str]) -> Rendered:
        rendered.append(values["name"])
        return render(template, values)

    monkeypatch.setattr(MailTemplate, "render", counted)
    files.people("email,name", *(f"p{number}@example.org,P{number}" for number in range(5)))
    recipients = files.load()
    assert rendered == [""]  # the template, to be checked by itself
    rows = recipients.rows()
    assert [next(rows).number for _ in range(3)] == [2, 3, 4]
    assert rendered == ["", "P0", "P1", "P2"]


def test_a_check_keeps_no_mails(files: Files) -> None:
    """It needs memory for the file, and a digest for each row."""
    files.write("body.txt", "$name " + "x" * 20_000)
    files.people("email,name", *(f"p{number}@example.org,P{number}" for number in range(2_000)))
    tracemalloc.start()
    try:
        assert files.load().total == 2_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_bad_files_are_told(files: Files) -> None:
    """The file: missing, not UTF-8, no column email, a column twice, no rows, broken quotes."""
    no_email = "people.csv: has no column email; its first row, where they stand with commas between,"
    for rows, said in (
        (("name;email", "Ada"), f"{no_email} has name;email"),
        (("x" * 300, "Ada"), f"{no_email} has {'x' * 200}"),
        ((), f"{no_email} is empty"),
        (("email,name,name", "a,b,c"), "people.csv: the column name stands twice"),
        (("email,name",), "people.csv: has no rows below its header"),
        (("email,name", 'ada@example.org,"A"x'), "people.csv: can't be read as CSV: ',' expected after '\"'"),
        (('"email"x,name', ""), "people.csv: can't be read as CSV: ',' expected after '\"'"),
    ):
        files.people(*rows)
        assert files.problems() == [said]
    files.people("email,name", "ada@example.org,Zoë", encoding="latin-1")
    assert files.problems() == ["people.csv: is not text in UTF-8: invalid continuation byte at octet 29"]
    files.csv.unlink()
    assert files.problems() == ["people.csv: can't be read: No such file or directory"]


def test_bad_templates_are_told(files: Files) -> None:
    """A line each, not one each row: no such column, a character no mail may hold, none there, not UTF-8, lone $."""
    files.write("body.html", "$nmae ${city} $name")
    has = "people.csv has no such column; it has email, name"
    assert files.problems() == [f"spring: $city: {has}", f"spring: $nmae: {has}"]
    files.write("body.html", "$name \x07")
    assert files.problems() == ["spring: html: holds the control character U+0007"]
    files.write("body.html", "only $5")
    assert files.problems() == ["spring: has a $ that opens no name; a dollar sign is written $$"]
    files.write("subject.txt", "one\ntwo")
    assert files.problems() == ["spring: subject.txt has more than one line"]
    (files.template / "subject.txt").write_bytes(b"\xff")
    assert files.problems() == ["spring: is not text in UTF-8"]
    (files.template / "subject.txt").unlink()
    assert files.problems() == ["spring/subject.txt: can't be read: No such file or directory"]


@pytest.mark.parametrize(("option", "name"), [("sender", "--from"), ("reply_to", "--reply-to")])
def test_bad_options_are_told_once(files: Files, option: str, name: str) -> None:
    """By the option's name, not row by row."""
    (problem,) = files.problems(**{option: "nobody"})
    assert problem.startswith(f"{name}: is not a mailbox address")
