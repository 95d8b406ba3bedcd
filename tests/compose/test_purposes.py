"""The kinds of purposes."""

import pytest

from otpmail.compose.catalog import Templates
from otpmail.compose.purposes import ALL_KINDS, KINDS, NEUTRAL, kind_of, names_of

MAILS = Templates(None, default_locale="en").by_locale["en"]


@pytest.mark.parametrize(
    ("purpose", "kind"),
    [
        ("login", "sign_in"),
        ("sign-in", "sign_in"),
        ("sign_up", "sign_up"),
        ("password-reset", "reset"),
        ("Verify_Email", "verify"),
        ("change-email", "change_address"),
        ("step-up", "confirm"),
        ("door", NEUTRAL),
        ("", NEUTRAL),
        ("-", NEUTRAL),
    ],
)
def test_the_kind_of_a_purpose(purpose: str, kind: str) -> None:
    """A purpose is of its kind in any case of letters, with - and _ or without."""
    assert kind_of(purpose) == kind


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_names_of_a_kind(kind: str) -> None:
    """Each name is of one kind, and so is the kind's own; all find the mail of the kind."""
    assert kind_of(kind) == kind
    for name in names_of(kind):
        assert kind_of(name) == kind
        assert MAILS[name] is MAILS[kind]
    names = [name for one in KINDS for name in names_of(one)]
    assert len(names) == len(set(names))
