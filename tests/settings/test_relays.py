"""EMAIL_RELAYS: what a URL may say."""

import re

import pytest

from otpmail.settings.relays import parse_relay, urls
from settings.conftest import Load, Problems

_URLS = "smtps://me%40x.org:p%3Aw%2Fd@one.example:4650, smtp://two.example?auth=login smtp+plain://127.0.0.1"


def test_urls() -> None:
    """Scheme, user, password, host and port become the settings of these names; ports follow the scheme."""
    first, second, third = map(parse_relay, urls(_URLS))
    assert (first["EMAIL_HOST"], first["EMAIL_PORT"], first["EMAIL_SECURITY"]) == ("one.example", "4650", "tls")
    assert (first["EMAIL"], first["APP_PASSWORD"]) == ("me@x.org", "p:w/d")
    assert (second["EMAIL_PORT"], second["EMAIL_SECURITY"], second["EMAIL_AUTH"]) == ("587", "starttls", "login")
    assert (third["EMAIL_PORT"], third["EMAIL_SECURITY"], third["EMAIL"]) == ("25", "plain", "")


def test_urls_apart() -> None:
    """Commas, spaces and line ends separate URLs."""
    assert urls(" smtp://a,smtp://b\n, smtp://c ") == ["smtp://a", "smtp://b", "smtp://c"]
    assert urls(" , ") == []


_ENCODED = (
    "user or password: seems to hold a / ? or # that is not encoded; write , / ? # and space as %2C %2F %3F %23 %20"
)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "one.example:25",
            "scheme: must be one of smtps://, smtp://, smtp+starttls://, smtp+plain://, as in smtps://u",
        ),
        ("ftp://one.example", "scheme: must be one of"),
        ("smtps:one.example", "scheme: must be one of"),
        ("ret@one.example", "scheme: must be one of"),
        ("smtps://a:secret@", "host: is missing; a relay is smtps://user:password@host:465"),
        ("smtps://a:secret@[one]:1", "host: is neither a name nor an IP address"),
        ("smtps://a:secret@[::1", "host: is neither a name nor an IP address"),
        ("smtps://a:sec/ret@one.example", _ENCODED),
        ("smtps://a:sec?ret@one.example", _ENCODED),
        ("smtps://a:sec#ret@one.example", _ENCODED),
        ("smtps://a:b@one.example:99999", "port: must be a whole number from 1 to 65535"),
        ("smtps://a:b@one.example:smtp", "port: must be a whole number from 1 to 65535"),
        ("smtps://a:b@one.example:0", "port: must be a whole number from 1 to 65535"),
        ("smtps://one.example/inbox", "after the port: only options may follow, as ?auth=login&ca_file=ca.pem"),
        (
            "smtps://one.example?colour=red",
            "option 1: is unknown; the options are auth, token_file, password_file, ca_file",
        ),
        ("smtps://a:b@c?sec=ret@one.example", "option 1: is unknown; the options are"),
    ],
)
def test_what_is_wrong_with_a_url_names_the_part_and_no_secret(url: str, words: str) -> None:
    """A wrong URL is reported by the part that is wrong and what it may be; no message shows a password."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}") as caught:
        parse_relay(url)
    assert "sec" not in str(caught.value)
    assert "ret@" not in str(caught.value)


def test_relays_share_what_a_url_does_not_say(load: Load) -> None:
    """Timeouts and limits are those of the EMAIL_ settings for all; credentials are each relay's own."""
    settings = load(
        EMAIL_RELAYS="smtps://u:p@one.example smtp://two.example",
        EMAIL_TIMEOUT="7",
        EMAIL="me@x.org",
        APP_PASSWORD="not for them",
    )
    assert [relay.host for relay in settings.relays] == ["one.example", "two.example"]
    assert {relay.timeout for relay in settings.relays} == {7}
    assert [relay.user for relay in settings.relays] == ["u", ""]
    assert "not for them" not in [relay.password.get_secret_value() for relay in settings.relays]


@pytest.mark.parametrize(
    ("urls", "lines"),
    [
        ("smtps://u@one.example", ["relay 1: password: is needed with user, the name to sign in with"]),
        ("smtp+plain://u:p@one.example", ["relay 1: scheme: plain would send the password unencrypted"]),
        ("smtp://one.example?auth=basic", ["relay 1: auth: must be 'plain', 'login'"]),
        ("smtp://one.example?auth=login", ["relay 1: user: is needed with auth=login"]),
        ("smtp://u@one.example?auth=xoauth2", ["relay 1: token_file: is needed with auth=xoauth2"]),
        ("smtp://one.example?ca_file=no.pem", ["relay 1: ca_file: is not a file"]),
        ("smtp://u%0A:p@one.example", ["relay 1: user: holds control characters"]),
        ("smtp://a smtp://b smtp://a:587", ["relay 3: its host and port are those of relay 1"]),
        ("smtp://u:p%zz@a", ["relay 1: password: holds a % that two hexadecimal digits do not follow"]),
        ("smtp://u%:p@a", ["relay 1: user: holds a % that two hexadecimal digits do not follow"]),
        ("smtp://u:p%ff@a", ["relay 1: password: is not text in UTF-8 once its %-codes are decoded"]),
        ("smtp://a?ca_file=%2", ["relay 1: ca_file: holds a % that two hexadecimal digits do not follow"]),
        ("smtp://u:p@a?auth=login&auth=plain", ["relay 1: option 2: auth stands there twice"]),
        ("ftp://a smtp://b smtp://u@c:0 smtp://u@d", ["relay 1: scheme: ", "relay 3: port: ", "relay 4: password: "]),
    ],
)
def test_wrong_relays_are_reported_by_their_place_and_part(problems: Problems, urls: str, lines: list[str]) -> None:
    """The rules for one relay hold for each; a line for each mistake names the relay and the part of its URL."""
    for line, words in zip(problems(EMAIL_RELAYS=urls), lines, strict=True):
        assert line.startswith(f"EMAIL_RELAYS: {words}")


def test_a_relay_behind_another_may_be_a_part_of_its_password(problems: Problems) -> None:
    """A comma or space in a password cuts the URL there, so the line asks for one, but not of the first relay."""
    schemes = "smtps://, smtp://, smtp+starttls://, smtp+plain://"
    forms = f"scheme: must be one of {schemes}, as in smtps://user:password@host:465"
    first, second = problems(EMAIL_RELAYS="one.example,two.example")
    assert first == f"EMAIL_RELAYS: relay 1: {forms}"
    assert second == f"EMAIL_RELAYS: relay 2: {forms}; is a comma or space before it in a password?"


def test_what_relays_have_in_common_is_reported_once(problems: Problems) -> None:
    """A wrong timeout is reported with its setting, not for each relay; EMAIL_HOST has no use beside a list."""
    lines = problems(EMAIL_RELAYS="smtp://a smtp://b", EMAIL_TIMEOUT="0", EMAIL_HOST="c")
    assert [line.partition(":")[0] for line in lines] == ["EMAIL_TIMEOUT", "EMAIL_HOST"]


def test_a_sender_is_needed_with_relays_too(load: Load, problems: Problems) -> None:
    """The first relay's user stands in for EMAIL_FROM, if it is an address."""
    relays = "smtps://me%40x.org:p@one.example smtps://u:p@two.example"
    assert load(EMAIL_RELAYS=relays, EMAIL_FROM="").mail.email_from == "me@x.org"
    for url, why in {"smtp://u:p@a": "is not a mailbox address to send from", "smtp://a": "is not set either"}.items():
        assert problems(EMAIL_RELAYS=f"{url} {relays}", EMAIL_FROM="") == (
            f"EMAIL_FROM: is needed, since the user of relay 1 in EMAIL_RELAYS {why}",
        )


def test_a_relay_that_stands_twice_hides_no_other_mistake(problems: Problems) -> None:
    """A relay that is named twice is reported beside a missing sender."""
    lines = problems(EMAIL_RELAYS="smtp://a smtp://a", EMAIL_FROM="")
    assert [line.partition(":")[0] for line in lines] == ["EMAIL_RELAYS", "EMAIL_FROM"]
