"""The settings of mails: who may be named as their sender."""

import pytest

from settings.conftest import Load, Problems


def test_allowed_senders_are_a_list(load: Load) -> None:
    """EMAIL_FROM_ALLOWED holds addresses and domains, in any case, with commas between."""
    allowed = load(EMAIL_FROM_ALLOWED="A@Example.org, @Shop.example,,").mail.email_from_allowed
    assert allowed == ("a@example.org", "@shop.example")


@pytest.mark.parametrize("entry", ["nobody", "@", "@a b", "a@b@c"])
def test_an_allowed_sender_that_is_wrong(problems: Problems, entry: str) -> None:
    """A wrong entry of the list is named."""
    (line,) = problems(EMAIL_FROM_ALLOWED=f"a@example.org,{entry}")
    assert line.startswith("EMAIL_FROM_ALLOWED: ")
    assert line.endswith(f": {entry!r} is neither an address nor an @ with a domain")


def test_the_name_to_sign_in_with_is_the_sender(load: Load, problems: Problems) -> None:
    """EMAIL stands in for EMAIL_FROM where it is a mailbox."""
    assert load(EMAIL_FROM="", EMAIL="me@example.org", APP_PASSWORD="hunter2").mail.email_from == "me@example.org"
    assert problems(EMAIL="me") == ("EMAIL_FROM: is needed, since EMAIL is not a mailbox address to send from",)
    assert problems(EMAIL="", APP_PASSWORD="") == ("EMAIL_FROM: is needed, since EMAIL is not set either",)
