"""Where settings come from, and what a person reads when some are wrong."""

import re
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import (
    MailSettings,
    OtpSettings,
    RelaySettings,
    ServerSettings,
    Settings,
    load_section,
    named_server,
)


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


def test_the_secrets_directory_may_be_named_in_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SECRETS_DIR counts in `.env` too, after the environment; a wrong one is told wherever it stands."""
    for name, workers in {"one": "1", "two": "2"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "WORKERS").write_text(workers)
    (tmp_path / ".env").write_text("SECRETS_DIR=one\n")
    assert Settings.load().mail.workers == 1
    monkeypatch.setenv("SECRETS_DIR", "two")
    assert Settings.load().mail.workers == 2
    monkeypatch.setenv("SECRETS_DIR", "")
    (tmp_path / ".env").write_text("SECRETS_DIR=three\n")
    with pytest.raises(SettingsError, match=r"^SECRETS_DIR: 'three' is wrong: is not a directory$"):
        Settings.load()


def test_the_service_to_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OTPMAIL_SERVER stands in the environment or in `.env`; an empty one is none."""
    assert not named_server()
    (tmp_path / ".env").write_text("OTPMAIL_SERVER=file:1\n")
    monkeypatch.setenv("OTPMAIL_SERVER", "")
    assert named_server() == "file:1"
    monkeypatch.setenv("OTPMAIL_SERVER", "environment:1")
    assert named_server() == "environment:1"


def test_all_that_is_wrong_is_told_at_once() -> None:
    """A line for each, whichever section it is in."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(PORT="x", EMAIL_PORT="0", WORKERS="none", OTP_DIGITS="99")
    named = [line.partition(":")[0] for line in caught.value.problems]
    assert named == ["PORT", "EMAIL_PORT", "WORKERS", "OTP_DIGITS"]


def test_what_does_not_go_together_is_told_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """All conflicts of settings are told at once, and beside those that are wrong by themselves, in any section."""
    monkeypatch.delenv("EMAIL_FROM")
    with pytest.raises(SettingsError) as caught:
        Settings.load(HOST="::", PORT="x", EMAIL="me", EMAIL_SECURITY="plain", EMAIL_WINDOW="0", OTP_DIGITS="99")
    named = [line.partition(":")[0] for line in caught.value.problems]
    assert named == ["PORT", "HOST", "EMAIL_WINDOW", "APP_PASSWORD", "EMAIL_SECURITY", "OTP_DIGITS", "EMAIL_FROM"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ALLOW_ANONYMOUS": "perhaps", "HOST": "0.0.0.0"},
        {"EMAIL_HOST": "a\nb", "EMAIL": "me@example.org", "APP_PASSWORD": "hunter2", "EMAIL_SECURITY": "plain"},
        {"EMAIL_AUTH": "token", "EMAIL": "me@example.org"},
        {"EMAIL": "a\nb", "EMAIL_AUTH": "plain", "EMAIL_FROM": ""},
        {"EMAIL_RELAYS": "ftp://one.example", "EMAIL_FROM": ""},
        {"EMAIL_RELAYS": "smtp://a%0Ab:c@one.example", "EMAIL_FROM": ""},
    ],
)
def test_nothing_is_concluded_from_a_wrong_value(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    """A conflict with a setting that is wrong by itself is not told: once mended it may be none."""
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert [line.partition(":")[0] for line in caught.value.problems] == [next(iter(wrong))]


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


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("EMIAL_HOST=", "EMIAL_HOST: there is no such setting, yet .env has it; is EMAIL_HOST meant?"),
        ("otp_digts=8", "OTP_DIGTS: there is no such setting, yet .env has it; is OTP_DIGITS meant?"),
        ("COLOUR_OF_THE_SKY=blue", "COLOUR_OF_THE_SKY: there is no such setting, yet .env has it"),
    ],
)
def test_a_misspelt_setting_in_the_file(tmp_path: Path, line: str, problem: str) -> None:
    """A name in `.env` that is no setting is refused, with the nearest one that is, and its value is not shown."""
    (tmp_path / ".env").write_text(f"EMAIL_PORT=465\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize("line", ["EMIAL_FROM=shop@example.org", "EMAIL=me@example.org\nAPP_PASSWRD=hunter2"])
def test_a_misspelt_setting_is_not_missing_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    """What was probably meant by a wrong name is not told as a setting that is needed."""
    monkeypatch.delenv("EMAIL_FROM")
    (tmp_path / ".env").write_text(line)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    (problem,) = caught.value.problems
    assert problem.endswith("meant?")


def test_what_is_no_setting_and_may_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names that others read pass in `.env`; in the environment and in SECRETS_DIR any do: those are not ours alone."""
    others = ("TARGET", "SECRETS_DIR", "OTPMAIL_SERVER", "CI", "PYTHON", "COMPOSE_PROJECT_NAME", "TZ", "tz")
    (tmp_path / ".env").write_text("".join(f"{name}=value\n" for name in others))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "DATABASE_PASSWORD").write_text("hunter2")
    monkeypatch.setenv("SECRETS_DIR", str(secrets))
    monkeypatch.setenv("EMIAL_HOST", "mail.example.org")
    assert Settings.load().relay.host == "smtp.gmail.com"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """A `.env` that can't be read is one line too, for whoever reads all settings or one section."""
    (tmp_path / ".env").write_bytes(b"EMAIL_FROM=\xff@example.org\n")
    with pytest.raises(SettingsError, match=r"^\.env: is not text in UTF-8$"):
        Settings.load()
    with pytest.raises(SettingsError, match=r"^\.env: is not text in UTF-8$"):
        load_section(ServerSettings)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("PORT 8080\n", [".env: line 1: is neither NAME=value nor a comment, which begins with #"]),
        ("PORT=1\n\n \r\nhunter2 hunter2", [".env: line 4: is neither NAME=value nor a comment, which begins with #"]),
        ("A='x\ny'\nB='hunter2\n", [".env: line 3: its quote is not closed, or has more behind it"]),
        ('PORT="1" 2\n# good\n=\n', [".env: line 1: its quote", ".env: line 3: is neither"]),
    ],
)
def test_a_line_that_is_no_assignment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, problems: list[str]
) -> None:
    """A line of `.env` that can't be read is told by its number, and by nothing else: what it says may be secret."""
    (tmp_path / ".env").write_text(text)
    for load in (Settings.load, lambda: load_section(ServerSettings)):
        with pytest.raises(SettingsError) as caught:
            load()
        for line, words in zip(caught.value.problems, problems, strict=True):
            assert line.startswith(words)
            assert "hunter2" not in line
    assert not caplog.records
