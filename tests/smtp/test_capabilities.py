"""What a relay announces, and what that means for a mail."""

import pytest

from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities


@pytest.mark.parametrize(
    ("extensions", "size"),
    [
        ({}, None),
        ({"SIZE": ""}, 0),
        ({"SIZE": "0"}, 0),
        ({"SIZE": " 1000 "}, 1000),
        ({"SIZE": "many"}, 0),
        ({"SIZE": "9" * 5000}, 0),
    ],
)
def test_size(extensions: dict[str, str], size: int | None) -> None:
    """The largest mail, 0 for no fixed bound (RFC 1870), None when it says nothing; nonsense is no bound."""
    assert Capabilities(extensions).size == size


@pytest.mark.parametrize(
    ("extensions", "octets", "smtputf8", "code"),
    [
        ({}, 5000, False, None),
        ({"SIZE": "1000"}, 1000, False, None),
        ({"SIZE": "1000"}, 1001, False, 552),
        ({"SIZE": "0"}, 5000, False, None),
        ({}, 10, True, 550),
        ({"SMTPUTF8": ""}, 10, True, None),
        ({"SMTPUTF8": "", "SIZE": "5"}, 10, True, 552),
    ],
)
def test_what_is_not_worth_offering(extensions: dict[str, str], octets: int, smtputf8: bool, code: int | None) -> None:  # noqa: FBT001
    """A mail too large, or one that needs SMTPUTF8 where it is not announced, is refused for good, with a reason."""
    envelope = Envelope("service@example.org", ("ada@example.org",), b"x" * octets, smtputf8)
    refusal = Capabilities(extensions).rejects(envelope)
    assert (refusal and refusal[0]) == code
    if refusal:
        assert refusal[1].startswith(b"5.")
