"""EMAIL_RELAYS: what a URL may say."""

from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import Settings
from otpmail.settings.relays import parse_relays

_URLS = "smtps://me%40x.org:p%3Aw%2Fd@one.example:4650, smtp://two.example?auth=login smtp+plain://127.0.0.1"


def test_urls() -> None:
    """Scheme, user, password, host and port become the settings of these names; ports follow the scheme."""
    first, second, third = parse_relays(_URLS)
    assert (first["EMAIL_HOST"], first["EMAIL_PORT"], first["EMAIL_SECURITY"]) == ("one.example", "4650", "tls")
    assert (first["EMAIL"], first["APP_PASSWORD"]) == ("me@x.org", "p:w/d")
    assert (second["EMAIL_PORT"], second["EMAIL_SECURITY"], second["EMAIL_AUTH"]) == ("587", "starttls", "login")
    assert (third["EMAIL_PORT"], third["EMAIL_SECURITY"], third["EMAIL"]) == ("25", "plain", "")


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        ("one.example:25", "entry 1 begins with none of smtps://"),
        ("smtps://a:secret@", "entry 1 names no host"),
        ("smtps://a:b@one.example smtps://a:sec/ret@two.example", "entry 2"),
        ("smtps://one.example:99999", "entry 1 is not a URL"),
        ("smtps://one.example?colour=red", "entry 1 has an option that is none of auth"),
    ],
)
def test_what_is_no_url_names_its_place_and_no_secret(urls: str, words: str) -> None:
    """A wrong entry is told by its place, and its password by nobody."""
    with pytest.raises(ValueError, match=words) as caught:
        parse_relays(urls)
    assert "sec" not in str(caught.value)


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
    ("variables", "words"),
    [
        ({"EMAIL_RELAYS": "smtps://u@one.example"}, "EMAIL_RELAYS: entry 1: APP_PASSWORD"),
        ({"EMAIL_RELAYS": "smtp+plain://u:p@one.example"}, "EMAIL_RELAYS: entry 1: EMAIL_SECURITY"),
        ({"EMAIL_RELAYS": "smtp://one.example", "EMAIL_HOST": "two.example"}, "EMAIL_HOST: EMAIL_RELAYS"),
        ({"EMAIL_RELAYS": "smtp://one.example smtp://one.example"}, "EMAIL_RELAYS: a host"),
        ({"EMAIL_RELAYS": "ftp://one.example"}, "EMAIL_RELAYS: entry 1 begins"),
    ],
)
def test_wrong_relays_name_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    """The rules for one relay hold for each, and the line says which entry it is."""
    with pytest.raises(SettingsError, match=words):
        _load(monkeypatch, tmp_path, **variables)
