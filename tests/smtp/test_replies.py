"""What a relay's replies mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.model import RecipientResult
from otpmail.smtp.replies import CLOSING, Reply, result


@pytest.mark.parametrize(
    ("code", "text", "enhanced", "reply"),
    [
        (250, "2.1.5 Ok", "2.1.5", "Ok"),
        (250, "Ok", "", "Ok"),
        (250, "", "", ""),
        (550, "5.1.1 no such user\n5.1.1 see https://x.org", "5.1.1", "no such user see https://x.org"),
        (451, "4.7.1\ngreylisted", "4.7.1", "greylisted"),
        (450, "4.2.0", "4.2.0", ""),
        (250, "2.0.0 queued as 2.1.5 Ok", "2.0.0", "queued as 2.1.5 Ok"),
        (550, "192.0.2.1 is listed", "", "192.0.2.1 is listed"),
        (550, "5.1.1234 odd", "", "5.1.1234 odd"),
        (250, "2.0.0 a\x1b[31mb\x00c", "2.0.0", "a?[31mb?c"),
    ],
)
def test_code_and_text_come_apart(code: int, text: str, enhanced: str, reply: str) -> None:
    """The enhanced code (RFC 2034) leads each line and is told once; the text is one printable line."""
    assert result("ada@example.org", Reply(code, text.encode())) == RecipientResult(
        "ada@example.org", code, enhanced, reply
    )


@given(st.text(max_size=3000))
def test_any_text_is_one_short_line(text: str) -> None:
    """Whatever a relay says, it can't fill a log or forge a line of it."""
    reply = result("ada@example.org", Reply(550, text.encode())).reply
    assert len(reply) <= 500
    assert reply.isprintable()


@pytest.mark.parametrize(("code", "accepted", "refused"), [(250, True, False), (451, False, False), (550, False, True)])
def test_what_a_code_means(code: int, accepted: bool, refused: bool) -> None:  # noqa: FBT001
    """2xx is taken, 5xx is refused for good, 4xx and no reply are neither."""
    found = result("ada@example.org", Reply(code, b"said"))
    assert (found.accepted, found.refused) == (accepted, refused)
    assert not RecipientResult("ada@example.org").accepted
    assert not RecipientResult("ada@example.org").refused


def test_closing() -> None:
    """421 is the relay's goodbye (RFC 5321, 4.2.3)."""
    assert CLOSING == 421
