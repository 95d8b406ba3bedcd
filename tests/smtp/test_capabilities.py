"""The capabilities that a relay announces, and which mails they exclude."""

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
    """The largest mail, 0 for no fixed bound (RFC 1870), None when not announced; a malformed size is no bound."""
    assert Capabilities(extensions).size == size


@pytest.mark.parametrize(
    ("parameters", "mail_max", "rcpt_max"),
    [
        ("MAILMAX=1000 RCPTMAX=50", 1000, 50),
        ("RCPTDOMAINMAX=1 mailmax=20", 20, None),
        ("MAILMAX=0 RCPTMAX=", None, None),
        ("MAILMAX=1000000 RCPTMAX=-1", None, None),
        ("MAILMAX RCPTMAX=1x", None, None),
        ("", None, None),
    ],
)
def test_limits(parameters: str, mail_max: int | None, rcpt_max: int | None) -> None:
    """MAILMAX and RCPTMAX of RFC 9422, from 1 to 999999; a malformed or unknown limit is ignored."""
    capabilities = Capabilities({"LIMITS": parameters})
    assert (capabilities.mail_max, capabilities.rcpt_max) == (mail_max, rcpt_max)


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
def test_rejected_mails(extensions: dict[str, str], octets: int, smtputf8: bool, code: int | None) -> None:  # noqa: FBT001
    """A mail too large, or one that needs SMTPUTF8 where it is not announced, is rejected with a reason."""
    envelope = Envelope("service@example.org", ("ada@example.org",), b"x" * octets, smtputf8)
    refusal = Capabilities(extensions).rejects(envelope)
    assert (refusal and refusal[0]) == code
    if refusal:
        assert refusal[1].startswith(b"5.")
