"""Where settings come from, and what a person reads when some are wrong."""

import re
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import MailSettings, OtpSettings, RelaySettings, ServerSettings, Settings


def test_sources_in_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment, then .env, then the secrets directory; what the command fixes goes before all."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, value in {"WORKERS": "1", "QUEUE_SIZE": "1", "MAIL_TTL": "1", "APP_PASSWORD": "hunter2"}.items():
        (secrets / name).write_text(value)
    (tmp_path / ".env").write_text("WORKERS=2\nQUEUE_SIZE=2\nOTP_DIGITS=8\n")
    monkeypatch.setenv("WORKERS", "3")
    monkeypatch.setenv("SECRETS_DIR", str(secrets))
    settings = Settings.load(PORT="0")
    assert (settings.mail.workers, settings.mail.queue_size, settings.mail.mail_ttl) == (3, 2, 1)
    assert settings.otp.digits == 8
    assert settings.relay.password.get_secret_value() == "hunter2"
    assert settings.server.port == 0


def test_all_that_is_wrong_is_told_at_once() -> None:
    """A line for each, whichever section it is in."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(PORT="x", EMAIL_PORT="0", WORKERS="none", OTP_DIGITS="99")
    named = [line.partition(":")[0] for line in caught.value.problems]
    assert named == ["PORT", "EMAIL_PORT", "WORKERS", "OTP_DIGITS"]


def test_a_wrong_value_is_shown_with_what_it_may_be() -> None:
    """Unless it is a secret."""
    with pytest.raises(SettingsError, match="LOG_FORMAT: 'xml' is wrong: must be 'text' or 'json'"):
        Settings.load(LOG_FORMAT="xml")


def test_the_example_shows_every_setting() -> None:
    """`.env.example` names each setting, once, as an assignment; those with a default are commented out with it."""
    example = (Path(__file__).parents[2] / ".env.example").read_text("utf-8")
    shown = re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", example)
    sections = (ServerSettings, RelaySettings, MailSettings, OtpSettings)
    variables = {variable for section in sections for variable in section.variables()}
    assert {name for name, _ in shown} == variables | {"SECRETS_DIR", "OTPMAIL_SERVER", "TARGET"}
    assert len(shown) == len({name for name, _ in shown})
