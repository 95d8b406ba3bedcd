"""The names of a relay's settings in advice: variables, or parts of a URL in EMAIL_RELAYS."""

from collections.abc import Callable

import pytest

from otpmail.settings import RelaySettings
from otpmail.settings.terms import in_terms_of

_ADVICE = [
    ("set EMAIL_SECURITY=starttls, or EMAIL_SECURITY=plain", "set smtp:// in EMAIL_RELAYS, or smtp+plain://"),
    ("set EMAIL_SECURITY=tls", "set smtps:// in EMAIL_RELAYS"),
    ("set EMAIL_AUTH=xoauth2 and EMAIL_TOKEN_FILE", "set ?auth=xoauth2 and ?token_file= in EMAIL_RELAYS"),
    ("set EMAIL_AUTH to one of these", "set ?auth= in EMAIL_RELAYS to one of these"),
    ("check EMAIL and APP_PASSWORD", "check the user in EMAIL_RELAYS and the password"),
    ("set EMAIL_HOST, or EMAIL_TLS_NAME", "set the host in EMAIL_RELAYS, or ?tls_name="),
    ("set EMAIL_PORT", "set the port in EMAIL_RELAYS"),
    ("set EMAIL_HELO", "set ?helo= in EMAIL_RELAYS"),
    ("set EMAIL_CERT_FILE and EMAIL_KEY_FILE", "set ?cert_file= in EMAIL_RELAYS and ?key_file="),
    ("set EMAIL_CA_FILE", "set ?ca_file= in EMAIL_RELAYS"),
    ("set APP_PASSWORD_FILE", "set ?password_file= in EMAIL_RELAYS"),
]


def _relay() -> RelaySettings:
    make: Callable[..., RelaySettings] = RelaySettings
    return make(host="192.0.2.1", helo="test")


@pytest.mark.parametrize(("variables", "parts"), _ADVICE)
def test_advice_names_what_has_an_effect(variables: str, parts: str) -> None:
    """A relay of EMAIL_RELAYS is changed in its URL, since the variables have no effect beside that."""
    assert in_terms_of(_relay(), variables) == variables
    assert in_terms_of(_relay().from_url(), variables) == parts


@pytest.mark.parametrize("name", ["EMAIL_FROM", "EMAIL_RATE", "EMAIL_TIMEOUT", "WORKERS"])
def test_settings_that_all_relays_share_keep_their_names(name: str) -> None:
    """A setting that holds for every relay of EMAIL_RELAYS is named by its own name."""
    assert in_terms_of(_relay().from_url(), f"set {name}") == f"set {name}"
