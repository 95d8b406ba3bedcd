"""EMAIL_RELAYS: what a URL may say."""

import re
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import Settings
from otpmail.settings.relays import parse_relay, urls

_URLS = "smtps://me%40x.org:p%3Aw%2Fd@one.example:4650, smtp://two.example?auth=login smtp+plain://127.0.0.1"


def test_urls() -> None:
    """Scheme, user, password, host and port become the settings of these names; ports follow the scheme."""
    first, second, third = map(parse_relay, urls(_URLS))
    assert (first["EMAIL_HOST"], first["EMAIL_PORT"], first["EMAIL_SECURITY"]) == ("one.example", "4650", "tls")
    assert (first["EMAIL"], first["APP_PASSWORD"]) == ("me@x.org", "p:w/d")
    assert (second["EMAIL_PORT"], second["EMAIL_SECURITY"], second["EMAIL_AUTH"]) == ("587", "starttls", "login")
    assert (third["EMAIL_PORT"], third["EMAIL_SECURITY"], third["EMAIL"]) == ("25", "plain", "")


def test_urls_apart() -> None:
    """Commas, spaces and line ends stand between URLs."""
    assert urls(" smtp://a,smtp://b\n, smtp://c ") == ["smtp://a", "smtp://b", "smtp://c"]
    assert urls(" , ") == []


_ENCODED = (
    "user or password: seems to hold a / ? or # as it is; in them , / ? # and space are written %2C %2F %3F %23 %20"
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
        ("smtps://a:secret@[one]:1", "host: is no name and no IP address"),
        ("smtps://a:secret@[::1", "host: is no name and no IP address"),
        ("smtps://a:sec/ret@one.example", _ENCODED),
        ("smtps://a:sec?ret@one.example", _ENCODED),
        ("smtps://a:sec#ret@one.example", _ENCODED),
        ("smtps://a:b@one.example:99999", "port: must be a whole number from 1 to 65535"),
        ("smtps://a:b@one.example:smtp", "port: must be a whole number from 1 to 65535"),
        ("smtps://a:b@one.example:0", "port: must be a whole number from 1 to 65535"),
        ("smtps://one.example/inbox", "behind the port: there may only be options, as ?auth=login&ca_file=ca.pem"),
        ("smtps://one.example?colour=red", "?colour=: is none of the options, which are auth, token_file, ca_file"),
        ("smtps://a:b@c?sec=ret@one.example", "option: is none of the options, which are"),
    ],
)
def test_what_is_wrong_with_a_url_names_the_part_and_no_secret(url: str, words: str) -> None:
    """A wrong URL is told by the part that is wrong and what it may be; its password by nobody."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}") as caught:
        parse_relay(url)
    assert "sec" not in str(caught.value)
    assert "ret@" not in str(caught.value)


def _load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **variables: str) -> Settings:
    monkeypatch.chdir(tmp_path)
    for name, value in {"EMAIL_FROM": "a@x.org", **variables}.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def test_relays_share_what_a_url_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Timeouts and limits are those of the EMAIL_ settings for all; credentials are each relay's own."""
    settings = _load(
        monkeypatch,
        tmp_path,
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
    ("urls", "problems"),
    [
        ("smtps://u@one.example", ["relay 1: password: is needed with user, the name to sign in with"]),
        ("smtp+plain://u:p@one.example", ["relay 1: scheme: plain would send the password unencrypted"]),
        ("smtp://one.example?auth=basic", ["relay 1: auth: 'basic' is wrong: must be 'plain', 'login'"]),
        ("smtp://one.example?auth=login", ["relay 1: user: is needed with auth=login"]),
        ("smtp://u@one.example?auth=xoauth2", ["relay 1: token_file: is needed with auth=xoauth2"]),
        ("smtp://one.example?ca_file=no.pem", ["relay 1: ca_file: 'no.pem' is wrong: is not a file"]),
        ("smtp://u%0A:p@one.example", ["relay 1: user: 'u\\n' is wrong: holds control characters"]),
        ("smtp://a smtp://b smtp://a:587", ["relay 3: a:587 is relay 1 already"]),
        ("ftp://a smtp://b smtp://u@c:0 smtp://u@d", ["relay 1: scheme: ", "relay 3: port: ", "relay 4: password: "]),
    ],
)
def test_wrong_relays_are_told_by_their_place_and_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, urls: str, problems: list[str]
) -> None:
    """The rules for one relay hold for each; a line for each fault says which relay it is, and which part of it."""
    with pytest.raises(SettingsError) as caught:
        _load(monkeypatch, tmp_path, EMAIL_RELAYS=urls)
    for line, words in zip(caught.value.problems, problems, strict=True):
        assert line.startswith(f"EMAIL_RELAYS: {words}")


def test_what_relays_have_in_common_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong timeout is the setting's, not that of each relay which has it; EMAIL_HOST is of no use beside a list."""
    with pytest.raises(SettingsError) as caught:
        _load(monkeypatch, tmp_path, EMAIL_RELAYS="smtp://a smtp://b", EMAIL_TIMEOUT="0", EMAIL_HOST="c")
    assert [line.partition(":")[0] for line in caught.value.problems] == ["EMAIL_TIMEOUT", "EMAIL_HOST"]


def test_a_sender_is_needed_with_relays_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is the user of the first relay where EMAIL_FROM is not set, if that is an address."""
    relays = "smtps://me%40x.org:p@one.example smtps://u:p@two.example"
    assert _load(monkeypatch, tmp_path, EMAIL_RELAYS=relays, EMAIL_FROM="").mail.email_from == "me@x.org"
    for url, why in {"smtp://u:p@a": "is not a mailbox address to send from", "smtp://a": "is not set either"}.items():
        with pytest.raises(SettingsError) as caught:
            _load(monkeypatch, tmp_path, EMAIL_RELAYS=f"{url} {relays}", EMAIL_FROM="")
        assert caught.value.problems == (f"EMAIL_FROM: is needed, since the user of relay 1 in EMAIL_RELAYS {why}",)
