"""The short form of `scripts/fuzz`: what reads addresses, mails and replies, with octets that Hypothesis makes up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.parsers import PARSERS, SEEDS, read_address, read_replies, write_mail

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES, MORE_EXAMPLES = 200, 20_000

_SIGNS = st.sampled_from(
    [
        *("a", "ada", "@", ".", "..", "example.org", "b\u00fccher.example", "xn--", "\u3002", "+", "%20", "%0d%0a"),
        *(" ", "\t", "\r", "\n", "\r\n", "\0", "\u2028", "\u0085", "\u200b", "\u202e", "\udc80", "\ud800", "\x1b["),
        *('"', "\\", "<", ">", "(", ")", "[", "]", ":", ";", ",", "=?utf-8?q?a=0D=0Ab?=", "=?utf-8?b?DQo=?="),
        *(
            "\u0130",
            "\u0131",
            "\u212a",
            "\u00df",
            "\u017f",
            "e\u0308",
            "\uff20",
            "\U0001f600",
            "x" * 70,
            "text/plain; a=b",
        ),
        *("X-A", "Subject", "Bcc", "charset", "multipart/mixed", "message/rfc822", "\x1f", "\x1f\x1f"),
    ]
)
_TEXTS = st.lists(_SIGNS | st.text(max_size=4), max_size=30).map("".join)
_OCTETS = _TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
_LINES = st.sampled_from(
    [
        *(
            b"250 ok\r\n",
            b"250-a\r\n",
            b"550 5.7.1 no\r\n",
            b"451-a\r\n451 b\r\n",
            b"421",
            b"25",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
        ),
        *(
            b"550 48291357\r\n",
            b"550 4829 1357\r\n",
            b"550 4.8.2 91357\r\n",
            b"550 NDgyOTEzNTc=\r\n",
            b"550-4829\r\n550 1357\r\n",
        ),
        *(
            b"250 \xff\xfe\r\n",
            b"354 \x1b[2J\r\n",
            b"250 " + b"x" * 600,
            b"999 x\r\n",
            b"&#52;8291357",
            b"=34=38291357",
        ),
    ]
)
_STREAMS = st.builds(
    lambda size, lines: bytes([size]) + b"".join(lines), st.integers(1, 255), st.lists(_LINES, max_size=20)
)


def _run(parse: Callable[[bytes], None], octets: st.SearchStrategy[bytes], *, full: bool) -> None:
    examples = MORE_EXAMPLES if full else EXAMPLES
    settings(max_examples=examples, derandomize=not full, database=None)(
        given(octets | st.binary(max_size=300))(parse)
    )()


def test_any_octets_are_an_address_or_refused(*, full: bool) -> None:
    """A text that is read as a mailbox ends no line, path or command, and is read the same again."""
    _run(read_address, _OCTETS, full=full)


def test_any_fields_are_a_mail_or_refused(*, full: bool) -> None:
    """A draft that is written as a mail has the headers that were asked for, each once, in lines that a relay takes."""
    _run(write_mail, _OCTETS, full=full)


def test_any_octets_are_replies_or_refused(*, full: bool) -> None:
    """Replies mean the same in pieces of any size, and no line that is kept of them has the code."""
    _run(read_replies, _STREAMS, full=full)


def test_the_seeds_are_good() -> None:
    """Each input that atheris begins with keeps the rules, and each parser has some."""
    assert SEEDS.keys() == PARSERS.keys()
    for name, seeds in SEEDS.items():
        for seed in seeds:
            PARSERS[name](seed)
