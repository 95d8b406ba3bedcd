"""Secret settings: however one is written wrongly, no message, repr or warning holds any part of it."""

import base64
import logging
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import RelaySettings, Settings
from otpmail.settings.loader import read_sources

PASSWORD = "hunter2-Tr0ub4dor"
KEY = base64.b64encode(b"\xf8hunter2\xff-32-octets-of-a-key-here").decode()
HEX = bytes(range(64, 80)).hex()  # as long as an id of a key may be
SHOWN = 5  # characters in a row of a secret that would tell something of it


def _shows(text: str, secret: str) -> bool:
    lowered, secret = text.lower(), secret.lower()
    return any(secret[start : start + SHOWN] in lowered for start in range(len(secret) - SHOWN + 1))


def _everything_said(caplog: pytest.LogCaptureFixture) -> str:
    """Load the settings, and return all that is said of them: the error, or the representations."""
    sources = read_sources()
    with caplog.at_level(logging.DEBUG):
        try:
            settings = Settings.load(sources)
        except SettingsError as error:
            logging.getLogger("test").exception("wrong")
            said = [str(error), repr(error)]
        else:
            said = [repr(settings), str(settings), *map(repr, settings.relays), settings.relays[0].model_dump_json()]
    return "\n".join((*said, repr(sources), repr(sources.env_file), repr(sources.secrets_dir), caplog.text))


@pytest.mark.parametrize(
    "value",
    [
        f"{KEY}:k1",
        f"{HEX}:k1",
        f"{HEX}:{HEX}",
        f"{HEX}:{HEX[:8]}",
        f"{HEX}:{KEY}",
        f"{HEX}:{KEY},{HEX}:{KEY}",
        KEY,
        HEX,
        f"k1={KEY}",
        f"k1 {KEY}",
        f"k1::{KEY}",
        f"k1:{KEY}:k2",
        f"k1:{KEY},k1:{KEY}",
        f"k1:{KEY};k2:{KEY}",
        f"k1:{KEY} k2:{KEY}",
        f"'k1:{KEY}'",
        f"k1:{KEY[:20]}",
        f"k1:{KEY[:-1]}",
        f"k1:{KEY}ü",
        f"ü{KEY}:k1",
        f"{{'k1': '{KEY}'}}",
        f"k1:{KEY}\n{KEY}:k2",
        f"k1:{PASSWORD}",
        f"{PASSWORD}:k1",
    ],
)
def test_no_error_about_the_keys_shows_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """OTP_KEYS written wrongly is reported by the place of the entry: what stands as its id may be the key."""
    monkeypatch.setenv("OTP_KEYS", value)
    said = _everything_said(caplog)
    assert not _shows(said, KEY), said
    assert not _shows(said, HEX), said
    assert not _shows(said, PASSWORD), said


@pytest.mark.parametrize(
    "value",
    [
        PASSWORD,
        f"smtps://u:{PASSWORD}",
        f"smtps://u:{PASSWORD}@",
        f"u:{PASSWORD}@one.example",
        f"{PASSWORD}://u@one.example",
        f"{PASSWORD}://u:{PASSWORD}@one.example",
        f"smtp:{PASSWORD}",
        f"smtp:/u:{PASSWORD}@one.example",
        f"smtps://u:p@one.example:{PASSWORD}",
        f"smtps://u:a/{PASSWORD}@one.example",
        f"smtps://u:a?{PASSWORD}@one.example",
        f"smtps://u:a#{PASSWORD}@one.example",
        f"smtps://u:[{PASSWORD}@one.example",
        f"smtps://u:a {PASSWORD}@one.example",
        f"smtps://u:a,{PASSWORD}@one.example",
        f"smtps://u:p@one.example/{PASSWORD}",
        f"smtps://u:p@one.example#{PASSWORD}",
        f"smtps://u@one.example?password={PASSWORD}",
        f"smtps://u@one.example?{PASSWORD}=u",
        f"smtps://u@one.example?{PASSWORD}",
        f"smtps://u@one.example?auth={PASSWORD}",
        f"smtps://u@one.example?auth=xoauth2&token_file={PASSWORD}",
        f"smtps://u:p@one.example?ca_file={PASSWORD}",
        f"smtps://u@one.example?password_file={PASSWORD}",
        f"smtps://{PASSWORD}%0a:u@one.example",
        f"smtps://{PASSWORD}%0a:{PASSWORD}@one.example?auth=plain",
        f"smtps://u:p@{PASSWORD} smtps://u:p@{PASSWORD}",
        f"smtps://one.example@u:{PASSWORD}",
        f"smtp+plain://u:{PASSWORD}@one.example",
    ],
)
def test_no_error_about_the_relays_shows_a_part_of_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """EMAIL_RELAYS holds passwords, which may stand in any part by mistake: no value of a part is shown."""
    monkeypatch.setenv("EMAIL_RELAYS", value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert caught.value.problems[0].startswith("EMAIL_RELAYS: relay ")
    said = _everything_said(caplog)
    assert not _shows(said, PASSWORD), said


@pytest.mark.parametrize("name", ["EMAIL_TOKEN_FILE", "APP_PASSWORD_FILE"])
def test_a_secret_in_place_of_its_file_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Somebody who sets the name of a file to the secret itself does not find it in the log."""
    monkeypatch.setenv(name, PASSWORD)
    said = _everything_said(caplog)
    assert f"{name}: " in said
    assert not _shows(said, PASSWORD), said


@pytest.mark.parametrize(
    "text",
    [
        f"OTP_KEYS=k1:{KEY}\nk2:{KEY}\n",
        f"OTP_KEYS=\n{KEY}\n",
        f"OTP_KEYS={KEY[:20]}\n{KEY[20:]}\n",
        f"OTP_KEYS:k1:{KEY}\n",
        f"OTP_KEYS: k1:{KEY}\n",
        f"k1:{KEY}\n",
        f"export {KEY}\n",
        f"{PASSWORD}\n",
        f"{PASSWORD}=APP_PASSWORD\n",
        f"APP_PASSWORD:{PASSWORD}=\n",
        f"APP_PASSWORD='{PASSWORD}\nPORT=x\n",
        f'APP_PASSWORD="{PASSWORD}" {PASSWORD}\n',
        f"APP_PASSWORD {PASSWORD}\n",
        f"APP_PASSWRD={PASSWORD}\n",
        f"OTP_KEY={KEY}\n",
        f"OTP_KEYS='{KEY}:k1'\n",
    ],
)
def test_no_error_about_the_file_shows_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A line of `.env` that is no setting may be a part of a secret: its text is not shown, nor what seems its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(text)
    said = _everything_said(caplog)
    assert "SettingsError" in said
    assert not _shows(said, KEY), said
    assert not _shows(said, PASSWORD), said


def test_an_error_of_the_library_shows_no_value() -> None:
    """An error of pydantic that nobody words shows no value, since the log holds it with its traceback."""
    with pytest.raises(ValueError, match="port") as caught:
        RelaySettings.from_layers({"EMAIL_PORT": PASSWORD, "APP_PASSWORD": PASSWORD, "EMAIL_AUTH": PASSWORD})
    assert not _shows(f"{caught.value} {caught.value!r}", PASSWORD)


def test_good_secrets_are_in_no_representation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Settings that are right show no secret either, in the environment, in a file or in a URL."""
    monkeypatch.setenv("OTP_KEYS", f"k1:{KEY}")
    monkeypatch.setenv("EMAIL_RELAYS", f"smtps://u:{PASSWORD}@one.example")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "APP_PASSWORD").write_text(PASSWORD)
    monkeypatch.setenv("SECRETS_DIR", "secrets")
    said = _everything_said(caplog)
    assert "RelaySettings(" in said
    assert not _shows(said, KEY), said
    assert not _shows(said, PASSWORD), said
