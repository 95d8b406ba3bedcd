"""The mail that every benchmark sends: a text mail of about 650 octets on the wire, to a recipient of its own."""

SUBJECT = "Your code for the staging console"

_TEXT = """Good morning,

the code {number:06} signs you in to the staging console. It is valid for two minutes, and once.

If you did not ask for it, somebody may have mistyped an address. You need not do anything, and nobody can sign in with
your address alone. We never ask for a code by telephone.

The people who keep the console running
"""

_LINE = "All work and no play makes a text of seventy octets, no more, no less."
_HEAD = 350  # octets of a mail before its text


def recipient(number: int) -> str:
    """The recipient of the mail with this number."""
    return f"person.{number % 100_000}@example.org"


def text(number: int) -> str:
    """The text of the mail with this number."""
    return _TEXT.format(number=number % 1_000_000)


def text_of(size: int) -> str:
    """The text of a mail of about so many octets."""
    return f"{_LINE}\n" * max(1, (size - _HEAD) // (len(_LINE) + 2))
