"""The output: octets leave in the order of the wire, and each piece counts once it has begun to leave."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from otpmail.smtp.commands import Stuffed
from otpmail.smtp.output import Octets, Output


@dataclass
class Content:
    """A mail whose content is written."""

    written: bool = False


PIECES = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.booleans(), st.integers(0, 5), st.integers(0, 3)))


def _written(pieces: list[tuple[bytes, bool, int, int]], *, at_once: bool) -> tuple[bytes, int, int, list[bool]]:
    """Write pieces, at once or octet by octet; returns the octets, and all that the output counted."""
    output, contents, octets = Output(), list[Content](), b""
    for piece, is_stuffed, replies, behind in pieces:
        contents.append(Content())
        shown: Octets = Stuffed(piece) if is_stuffed else piece
        output.push(shown, contents[-1], replies=replies, behind=min(behind, len(piece) - 1))
    while output.pending:
        octets += output.take(output.pending if at_once else 1)
    return octets, output.owed, output.pending, [content.written for content in contents]


@given(PIECES)
def test_what_leaves_at_once_is_what_leaves_octet_by_octet(pieces: list[tuple[bytes, bool, int, int]]) -> None:
    """The same octets leave, and as many replies are owed, whether all is taken at once or in pieces."""
    assert _written(pieces, at_once=True) == _written(pieces, at_once=False)


def test_what_is_left_of_a_piece_leaves_with_the_next_ones() -> None:
    """A piece that has left in part goes on where it stopped, and its replies are owed once."""
    output = Output()
    output.push(b"abc", replies=2)
    output.push(b"de", replies=1)
    assert (output.take(1), output.owed) == (b"a", 2)
    assert (output.take(100), output.owed, output.pending) == (b"bcde", 3, 0)
