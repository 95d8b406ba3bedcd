"""The inbox of `otpmail dev`: what it keeps, and how tests wait for a mail."""

import asyncio
from email.message import EmailMessage

import pytest

from otpmail.dev.bodies import html_with_images
from otpmail.dev.catching import read_mail
from otpmail.dev.caught import CaughtMail
from otpmail.dev.inbox import Inbox, InboxMail
from otpmail.dev.served import to_json
from otpmail.dev.show import details, file_name, octets_of, summary

ADA = "ada@example.org"


def _mail(*people: str, code: str = "", size: int = 0) -> CaughtMail:
    header = f"One-Time-Code: {code}\r\n" if code else ""
    return CaughtMail("a@b.example", people or (ADA,), f"Subject: Hi\r\n{header}\r\n{'x' * size}\r\n".encode())


def _add(inbox: Inbox, caught: CaughtMail) -> None:
    inbox.add(read_mail(caught).mail)


def _latest(inbox: Inbox) -> InboxMail | None:
    return next((mail for mail in inbox.mails(ADA) if mail.code), None)


async def test_the_mails_of_an_address_are_newest_first() -> None:
    """A mail is found by each of its recipients, however the address is written."""
    inbox = Inbox()
    for number in range(3):
        _add(inbox, _mail(ADA, "grace@example.org", code=str(number)))
    _add(inbox, _mail("grace@example.org"))
    assert [mail.code for mail in inbox.mails("ada@EXAMPLE.org")] == ["2", "1", "0"]
    assert [mail.number for mail in inbox.mails()] == [4, 3, 2, 1]
    assert list(inbox.mails("nobody@example.org")) == []
    assert list(inbox.mails("no address")) == []


@pytest.mark.parametrize(
    ("code", "shown"), [("271828", "271828"), ("7F3KQ2ABXTMC", "7F3K-Q2AB-XTMC"), ("", ""), ("x" * 999, "xxxx-" * 125)]
)
async def test_a_code_is_shown_as_in_its_mail(code: str, shown: str) -> None:
    """A code of letters has groups, whatever a mail claims to be one; programs get it without dashes."""
    inbox = Inbox()
    _add(inbox, _mail(code=code))
    (mail,) = inbox.mails(ADA)
    assert details(mail)["shown_code"] == shown.removesuffix("-")
    assert details(mail)["code"] == code[:500]


async def test_the_preview_is_the_first_words() -> None:
    """The first words of a mail are shown in the list, also behind long blanks, as the HTML of tables has."""
    inbox = Inbox()
    rows = "<tr>\n                    <td></td></tr>\n" * 500
    content = f"Content-Type: text/html\r\n\r\n<table>{rows}</table>Your invoice{rows} is {'here ' * 500}"
    _add(inbox, CaughtMail("a@b.example", (ADA,), content.encode()))
    (mail,) = inbox.mails(ADA)
    assert mail.preview == f"Your invoice is {'here ' * 500}"[:300]


async def test_a_test_waits_for_a_code() -> None:
    """A wait ends with the first mail that is looked for, and without one when its time is over."""
    inbox = Inbox()
    waiting = asyncio.create_task(inbox.wait_for(lambda: _latest(inbox), ADA, 10))
    await asyncio.sleep(0)
    _add(inbox, _mail("grace@example.org", code="1"))
    _add(inbox, _mail(ADA))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    _add(inbox, _mail(ADA, code="2"))
    found = await waiting
    assert found is not None
    assert found.code == "2"
    assert await inbox.wait_for(lambda: None, ADA, 0.01) is None
    assert not inbox._waiting


@pytest.mark.parametrize(("most_mails", "most_octets", "left"), [(3, 1 << 20, 3), (1000, 9000, 4), (1000, 10, 1)])
async def test_the_oldest_mails_give_way(most_mails: int, most_octets: int, left: int) -> None:
    """The inbox holds so many mails and octets, and the latest mail in any case."""
    inbox = Inbox(most_mails=most_mails, most_octets=most_octets)
    for _ in range(10):
        _add(inbox, _mail(size=1000))
    assert [mail.number for mail in inbox.mails()] == list(range(10, 10 - left, -1))


async def test_mails_are_deleted() -> None:
    """By number, by address, and all; followers learn of each change."""
    inbox = Inbox()
    seen: list[int | None] = []
    unfollow = inbox.follow(lambda mail: seen.append(None if mail is None else mail.number))
    for address in (ADA, ADA, "grace@example.org", "grace@example.org"):
        _add(inbox, _mail(address))
    assert inbox.clear(ADA) == 2
    assert inbox.delete(3)
    assert not inbox.delete(3)
    unfollow()
    assert inbox.clear() == 1
    assert list(inbox.mails()) == []
    assert seen == [1, 2, 3, 4, None, None]


async def test_the_mail_that_was_deleted_last_is_put_back() -> None:
    """It comes back to its place, and who waits for its address finds it. No other comes back, nor after a `clear`."""
    inbox = Inbox()
    for _ in range(4):
        _add(inbox, _mail(ADA))
    assert inbox.delete(1)
    assert inbox.delete(3)
    assert not inbox.put_back(1)
    assert inbox.put_back(3)
    assert not inbox.put_back(3)
    assert [mail.number for mail in inbox.mails(ADA)] == [4, 3, 2]
    assert inbox.delete(2)
    waiting = asyncio.create_task(inbox.wait_for(lambda: inbox.get(2), ADA, 5))
    await asyncio.sleep(0)
    assert inbox.put_back(2)
    assert await waiting is inbox.get(2)
    assert inbox.oldest == 2
    inbox.delete(4)
    inbox.clear()
    assert not inbox.put_back(4)
    assert list(inbox.mails()) == []


async def test_a_mail_that_is_put_back_has_no_place_more() -> None:
    """A mail that comes back takes the place of the oldest, as a new one does, and it may be that one itself."""
    inbox = Inbox(most_mails=2, most_octets=1 << 20)
    for _ in range(2):
        _add(inbox, _mail())
    inbox.delete(2)
    _add(inbox, _mail())
    assert inbox.put_back(2)
    assert [mail.number for mail in inbox.mails()] == [3, 2]
    inbox.delete(2)
    _add(inbox, _mail())
    assert inbox.put_back(2)
    assert [mail.number for mail in inbox.mails()] == [4, 3]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("invoice 7.pdf", "invoice 7.pdf"),
        ("résumé 日本語.pdf", "résumé 日本語.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\a.dll", "a.dll"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("a\r\nb\0.txt", "a__b_.txt"),
        ("..", "attachment"),
        ("", "attachment"),
        ("n" * 200 + ".txt", "n" * 76 + ".txt"),
    ],
)
def test_the_name_of_a_file_that_is_kept(name: str, kept: str) -> None:
    """A file keeps its name, without folders, and without characters that hide how it ends."""
    assert file_name(name) == kept


async def test_a_refused_mail_is_listed() -> None:
    """A mail is found by the recipients that refused it too, but a test's wait for a code does not find it there."""
    inbox = Inbox()
    code = b"One-Time-Code: 1\r\n\r\n"
    reply = "550 5.1.1 there is no such mailbox"
    _add(inbox, CaughtMail("a@b.example", (), b"", (("550@fail.example", reply),)))
    _add(inbox, CaughtMail("a@b.example", (ADA,), code, (("550@fail.example", reply),)))
    assert [mail.number for mail in inbox.mails("550@fail.example")] == [2, 1]
    assert [mail.number for mail in inbox.mails()] == [2, 1]
    assert [mail.number for mail in inbox.mails("550@fail.example", delivered=True)] == []
    assert [mail.number for mail in inbox.mails(delivered=True)] == [2]


async def test_a_line_of_the_list_is_short() -> None:
    """However long a mail is, its line of the list is not, and it keeps no parsed mail."""
    inbox = Inbox()
    _add(inbox, CaughtMail("a@b.example", (ADA,), b"Subject: %s\r\n\r\n%s" % (b"s " * 9000, b"x\r\n" * 90_000)))
    (mail,) = inbox.mails()
    assert len(to_json(summary(mail))) < 1200
    assert not any(isinstance(value, EmailMessage) for value in vars(mail).values())


async def test_the_search_covers_all_that_people_read() -> None:
    """Words are found in any order and case, in the text, the HTML, addresses, replies and names of files."""
    inbox = Inbox()
    content = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
        b"--c\r\n\r\n%s the end\r\n--c\r\nContent-Type: text/html\r\n\r\n<p>in <b>HTML</b>alone</p>\r\n--c--\r\n"
        b"--b\r\nContent-Disposition: attachment; filename=report.pdf\r\n\r\nx\r\n--b--\r\n"
    ) % (b"words " * 5000)
    _add(inbox, CaughtMail("a@b.example", (ADA,), content, (("550@fail.example", "550 5.1.1 no such mailbox"),)))
    (mail,) = inbox.mails()
    for words in ("END words", "GRÜSSE", "htmlalone", "report.PDF", "ada@", "such 550@fail", "a@b.example", " "):
        assert mail.has(words), words
    assert not mail.has("end missing")
    assert mail.files == ["report.pdf"]


async def test_a_mail_that_was_opened_is_read() -> None:
    """A mail that was opened stays read, and followers learn of that once."""
    inbox = Inbox()
    _add(inbox, _mail())
    seen: list[bool] = []
    inbox.follow(lambda mail: seen.append(mail is not None and mail.is_read))
    assert inbox.mark_read(1)
    assert inbox.mark_read(1)
    assert not inbox.mark_read(2)
    assert seen == [True]
    assert [summary(mail)["read"] for mail in inbox.mails()] == [True]


@pytest.mark.parametrize("depth", [100, 400, 3000])
@pytest.mark.parametrize(
    "part",
    ["Content-Type: message/rfc822\r\n\r\n", "Content-Type: multipart/mixed; boundary=b{0}\r\n\r\n--b{0}\r\n"],
    ids=["mails", "parts"],
)
async def test_a_mail_that_is_nested_deeply(part: str, depth: int) -> None:
    """It is caught and shown, however deep: the relay would else refuse it, and the page have an error."""
    inner = "".join(part.format(number) for number in range(depth))
    head = "Subject: Deep\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    content = f"{head}--x\r\n\r\nHi\r\n--x\r\n{inner}\r\n--x--\r\n"
    caught = CaughtMail("a@b.example", (ADA,), content.encode())
    inbox = Inbox()
    _add(inbox, caught)
    (mail,) = inbox.mails(ADA)
    shown = details(mail)
    assert (shown["subject"], shown["source"]) == ("Deep", content)
    assert all(octets_of(each) for each in caught.message.iter_attachments())
    html_with_images(caught.message)
