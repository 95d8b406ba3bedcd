"""The text and HTML of a mail, as the inbox, the terminal and the tests of other programs read them."""

import os
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from time import thread_time

import pytest

from otpmail.cli.dev import Screen
from otpmail.dev.bodies import body_of, for_frame, html_with_images, text_of, text_of_html
from otpmail.dev.catching import read_mail
from otpmail.dev.caught import CaughtMail
from otpmail.telemetry.writer import BackgroundWriter

UNKNOWN = b'Subject: Hi\r\nContent-Type: text/plain; charset="no-such"\r\n\r\ncode 123456 \xc3\xa9\r\n'
PEOPLE = ("ada@example.org",)


@pytest.mark.parametrize(
    "fields",
    [
        b'Content-Type: text/plain; charset="no-such"',
        b'Content-Type: text/plain; charset="base64"',
        b'Content-Type: text/plain; charset="\xff"',
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: no-such",
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64",
    ],
)
def test_no_charset_or_encoding_hides_a_body(fields: bytes) -> None:
    """A body whose charset or encoding Python can't read is read as UTF-8, or as far as it goes."""
    message = message_from_bytes(fields + b"\r\n\r\ncode 123456\r\n", policy=policy.default)
    assert isinstance(body_of(message, "plain"), str)


def test_the_first_kind_there_is() -> None:
    """The kinds are looked for in turn; a mail with none of them has an empty body."""
    message = message_from_bytes(b"Content-Type: text/html\r\n\r\n<p>Hi</p>", policy=policy.default)
    assert body_of(message, "plain", "html") == "<p>Hi</p>"
    assert body_of(message, "plain") == ""


def test_tests_read_a_mail_of_an_unknown_charset() -> None:
    """`otpmail.testing` reads such a mail too."""
    assert CaughtMail("a@b.example", PEOPLE, UNKNOWN).text == "code 123456 é\r\n"


def test_the_terminal_shows_a_mail_of_an_unknown_charset() -> None:
    """`otpmail dev` prints it. An exception would refuse the mail, since the relay's hook prints."""
    assert "code 123456 é" in _shown(CaughtMail("a@b.example", PEOPLE, UNKNOWN))


def test_the_terminal_says_who_defers_a_mail() -> None:
    """A recipient that the relay wants later has deferred the mail, and not refused it."""
    refused = (("452@fail.example", "452 4.2.2 full"), ("550@fail.example", "550 5.1.1 nobody"))
    shown = _shown(CaughtMail("a@b.example", (), UNKNOWN, refused))
    assert "deferred by 452@fail.example: 452 4.2.2 full" in shown
    assert "refused by 550@fail.example: 550 5.1.1 nobody" in shown


def test_the_terminal_shows_a_long_text_in_part() -> None:
    """The first 10,000 characters are shown, and how many more there are: to print megabytes takes seconds."""
    shown = _shown(CaughtMail("a@b.example", PEOPLE, b"Subject: Long\r\n\r\nbegin" + b"x" * 3_000_000 + b"end"))
    assert "begin" in shown
    assert "end" not in shown
    assert "(2990008 more characters are not shown here)" in shown


def _shown(caught: CaughtMail) -> str:
    """Return what `otpmail dev` prints of a mail."""
    read, write = os.pipe()
    screen = Screen(BackgroundWriter(write, lambda _count: b""))
    screen.show_mail(read_mail(caught))
    screen.close()
    shown = os.read(read, 20_000).decode()
    os.close(read)
    os.close(write)
    return shown


def test_images_of_the_mail_are_shown() -> None:
    """`cid:` of an image becomes its octets. That of another part, or of none, stays and is not shown."""
    message = EmailMessage()
    message.set_content("Hi")
    names = ("cid:logo@a.example", "CID:logo%40a.example", "cid:page@a.example", "cid:none@a.example")
    message.add_alternative("".join(f'<img src="{name}">' for name in names), subtype="html")
    html = message.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(b"GIF89a", "image", "gif", cid="<logo@a.example>")
    html.add_related(b"<script>", "text", "html", cid="<page@a.example>")
    read = message_from_bytes(message.as_bytes(), policy=policy.default)
    shown = html_with_images(read)
    assert shown.count('<img src="data:image/gif;base64,R0lGODlh">') == 2
    assert '"cid:page@a.example"' in shown
    assert '"cid:none@a.example"' in shown


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>See the <b>file</b>.</p><p>Bye</p>", "See the file. Bye"),
        ("<head><title>x</title><style>p { a < b }</style></head><body>1 &lt; 2 &amp; 3</body>", "1 < 2 & 3"),
        ("a<!-- b > c <p>d</p> --> e<script>if (a<b) c()</script>f", "a e f"),
        ("a <br/>b<!-- never closed <p>c", "a b"),
        ("1 < 2<", "1 < 2<"),
        ("5 < 6 and 7 > 3, <3", "5 < 6 and 7 > 3, <3"),
        ("<html><head><meta charset=utf-8><body>hello", "hello"),
        ("<head><title>no</title>hello", "hello"),
        ("<title>no</titles> </TITLE\n>hello", "hello"),
        ("<head/><header>hello</header>", "hello"),
        ("<a title='x > y'>z", "z"),
        ("<a title = \"x > 'y'\" b='\">' c=d\"e>z", "z"),
        ("<a b='c'd=\"e>\"f =g/>z", "z"),
        ('<a ">z<a =">z<a b=>z', "zzz"),
        ("a<p title='never closed>b", "a"),
        ("a<p title=never closed", "a"),
        ("12<!-- x -->34<!-->56<!--->78<!-- -- --!>90", "1234567890"),
        ("a<![if !mso]>b<![endif]>c<!doctype html>d<?xml x?>e</ x>f</>g", "abcdefg"),
        ("<!--[if mso]><p>no</p><![endif]-->hello", "hello"),
        ("<Script x='>'>'</p>' </scriptx> </script x>hello", "hello"),
        ("</script>hello</style>", "hello"),
        ("<iframe><p>no</iframe><noframes><p>no</noframes>hello", "hello"),
        ("&<b>lt;</b>&#0000065;&#x41;&notit;", "&lt;AA¬it;"),
        (f"a&#{'9' * 5000};b&#{'0' * 5000}65;c", "a\ufffdbAc"),
        ("<style>", ""),
        ("", ""),
    ],
)
def test_the_text_of_html(html: str, text: str) -> None:
    """Tags, comments, styles and scripts are no text, also where the HTML is broken."""
    assert " ".join(text_of_html(html).split()) == text


def test_html_alone_is_read_as_text() -> None:
    """The text of a mail that has HTML alone is what a reader sees of it."""
    message = message_from_bytes(b"Content-Type: text/html\r\n\r\n<style>p{}</style><p>Hi</p>", policy=policy.default)
    assert text_of(message).strip() == "Hi"


def test_blanks_hide_no_html() -> None:
    """A text of blanks alone, which some programs put in front of the HTML, is no text of the mail."""
    message = EmailMessage()
    message.set_content(" \n\n\u00a0\n")
    assert text_of(message).isspace()
    message.add_alternative("<p>Hi</p>", subtype="html")
    assert text_of(message).strip() == "Hi"


@pytest.mark.parametrize(
    "opening",
    [
        *("<style", "<!--", "<!-", "<!", "<?", "</", "<", "<style>", "<style></styl", "<!-- -->", "<!-- --", "<p"),
        *(
            "<p ",
            "<p a",
            "<p a=",
            "<p a='",
            "<p a=\"'>",
            "<p a=b'",
            "<p '",
            "<p =",
            "<p/",
            "<p\n ",
            "<p a  ",
            " =",
            "&",
            "&#",
        ),
        *("&#1", "&#0", "&a", "<script/x='", "</script", "<title></title ", "<textarea>"),
    ],
)
def test_hostile_html_takes_a_linear_time(opening: str) -> None:
    """Eight times as many openings take about eight times as long; to read the rest for each would take 64 times."""
    for start in ("", "<p ", "<p a='", "<!--", "<style>", "&#"):
        few, many = start + opening * 5_000, start + opening * 40_000
        # Other processes may disturb one comparison, hardly each of five.
        assert any(_seconds(many) < 24 * _seconds(few) + 0.005 for _ in range(5)), start


def _seconds(html: str) -> float:
    """Return the processor time that the text of some HTML takes, the least of three."""

    def once() -> float:
        begin = thread_time()
        text_of_html(html)
        return thread_time() - begin

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Hi</p>", '<base target="_blank"><p>Hi</p>'),
        ("", '<base target="_blank">'),
        ("\n<!DOCTYPE html>\n<html>", '\n<!DOCTYPE html><base target="_blank">\n<html>'),
        ("<!-- a --><?b?>\n<!doctype html><p>", '<!-- a --><?b?>\n<!doctype html><base target="_blank"><p>'),
    ],
)
def test_links_open_in_a_tab_of_their_own(html: str, expected: str) -> None:
    """The mail stays in its frame. A doctype stays first, since the HTML is laid out by it."""
    assert for_frame(html) == expected


@pytest.mark.parametrize(
    ("tag", "left"),
    [
        ("<link rel=preconnect>", ["meta"]),
        ("<LINK/rel=preconnect>", ["meta"]),
        ("<lInk\nrel=dns-prefetch>", ["meta"]),
        ("<link>", ["meta"]),
        ("<FRAME/src=//a.example>", ["meta"]),
        ("<iframe src=//a.example>b<!-- <i></iframe>", []),
        ("<IFRAME\nsrc=//a.example></iframe ><iframe></iframe>", []),
        ("<!-- <iframe> -->", []),
        ("<!--><iframe src=//a.example>-->", []),  # for a browser, unlike Python, the comment has ended at once
    ],
)
def test_the_frame_of_a_mail_dials_nobody(tag: str, left: list[str]) -> None:
    """No `link` or frame is left, which a browser may dial for before any policy; what is around it stays."""
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  the signature of HTMLParser
            found.append(tag)

    Tags().feed(for_frame(f"<p>a linked <linked> &lt;link&gt;{tag}<a href='/link'>b</a>"))
    assert found == ["base", "p", "linked", *left, "a"]
    assert "frame" not in for_frame(tag).lower()
