"""One pass over all settings: which place wins, and that every mistake is found in one run."""

from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import ServerSettings, Settings, load_section, named_server, read_sources
from otpmail.settings.loader import SECTIONS
from otpmail.settings.usual_names import MEANT
from settings.conftest import Load, Problems

_NO_SETTING = (
    "is no setting of otpmail; remove or correct the line (its name is not shown, since it may be part of a secret on "
    "two lines)"
)


def _names(lines: tuple[str, ...]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


def test_sources_in_their_order(load: Load, tmp_path: Path) -> None:
    """The environment wins over `.env`, and that over the secrets directory."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, value in {"WORKERS": "1", "QUEUE_SIZE": "1", "MAIL_TTL": "1", "APP_PASSWORD": "hunter2"}.items():
        (secrets / name).write_text(value)
    (tmp_path / ".env").write_text("WORKERS=2\nQUEUE_SIZE=2\nOTP_DIGITS=8\n")
    settings = load(EMAIL="me", WORKERS="3", SECRETS_DIR=str(secrets))
    assert (settings.mail.workers, settings.mail.queue_size, settings.mail.mail_ttl) == (3, 2, 1)
    assert settings.otp.digits == 8
    assert settings.relay.password.get_secret_value() == "hunter2"


def test_what_a_command_fixes_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed setting wins over all places, also when it is fixed to be empty or unset."""
    for name, value in {"PORT": "1", "EMAIL_RELAYS": "smtp://one.example", "EMAIL_AUTH": "plain"}.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(PORT="0", EMAIL_RELAYS="", EMAIL_AUTH=None)
    assert (settings.server.port, settings.relay.host, settings.relay.auth) == (0, "smtp.gmail.com", None)


def test_an_empty_value_counts_as_not_set(load: Load, tmp_path: Path) -> None:
    """An empty value hides neither the default nor what a later place says."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "WORKERS").write_text("1")
    (secrets / "QUEUE_SIZE").write_text("\n")
    (tmp_path / ".env").write_text("WORKERS=\nPORT=\n")
    settings = load(SECRETS_DIR="secrets", WORKERS="", PORT="")
    assert (settings.mail.workers, settings.mail.queue_size, settings.server.port) == (1, 10_000, 40700)


def test_names_count_in_any_case(load: Load, tmp_path: Path) -> None:
    """A setting may be written in small letters in each of the places."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mail_ttl").write_text("1")
    (tmp_path / ".env").write_text("queue_size=2\n")
    mail = load(workers="3", secrets_dir="secrets").mail
    assert (mail.workers, mail.queue_size, mail.mail_ttl) == (3, 2, 1)


def test_a_section_made_by_hand_reads_no_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only a load looks at the environment and at `.env`."""
    monkeypatch.setenv("PORT", "1")
    (tmp_path / ".env").write_text("HOST=::1\n")
    assert ServerSettings(drain_seconds=1).address == "127.0.0.1:40700"


def test_the_service_to_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OTPMAIL_SERVER is read from the environment, then from `.env`; an empty one counts as not set."""
    assert not named_server(read_sources())
    (tmp_path / ".env").write_text("OTPMAIL_SERVER=file:1\n")
    monkeypatch.setenv("OTPMAIL_SERVER", "")
    assert named_server(read_sources()) == "file:1"
    monkeypatch.setenv("OTPMAIL_SERVER", "environment:1")
    assert named_server(read_sources()) == "environment:1"


def test_the_service_to_call_and_a_file_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A faulty `.env` stops a client only if OTPMAIL_SERVER is not in the environment."""
    (tmp_path / ".env").write_text("OTPMAIL_SERVER=file:1\nPORT 1\n")
    with pytest.raises(SettingsError, match=r"^\.env: line 2: "):
        named_server(read_sources())
    monkeypatch.setenv("OTPMAIL_SERVER", "environment:1")
    assert named_server(read_sources()) == "environment:1"


def test_one_section_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mistake in another section, or a name that is no setting, does not concern who loads one section."""
    monkeypatch.setenv("WORKERS", "none")
    (tmp_path / ".env").write_text("EMIAL_HOST=mail.example.org\n")
    assert load_section(ServerSettings, PORT="1").port == 1
    with pytest.raises(SettingsError, match=r"^PORT: 'x' is wrong: must be a whole number from 0 to 65535$"):
        load_section(ServerSettings, PORT="x")


# Mistakes.


def test_every_mistake_is_found_in_one_run() -> None:
    """There is a line for each wrong setting, whichever section it is in."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(PORT="x", EMAIL_PORT="0", WORKERS="none", OTP_DIGITS="99")
    assert _names(caught.value.problems) == ["PORT", "EMAIL_PORT", "WORKERS", "OTP_DIGITS"]


def test_conflicts_are_found_in_the_same_run(problems: Problems) -> None:
    """All conflicts are reported beside the settings that are wrong by themselves, in any section."""
    lines = problems(
        HOST="::", PORT="x", EMAIL="me", EMAIL_SECURITY="plain", EMAIL_WINDOW="0", OTP_DIGITS="99", EMAIL_FROM=""
    )
    assert _names(lines) == [
        *("PORT", "HOST", "EMAIL_WINDOW", "APP_PASSWORD", "EMAIL_SECURITY", "OTP_DIGITS", "EMAIL_FROM")
    ]


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
def test_nothing_is_concluded_from_a_wrong_value(problems: Problems, wrong: dict[str, str]) -> None:
    """A conflict with a setting that is wrong by itself is not reported: it may be gone once that is mended."""
    assert _names(problems(**wrong)) == [next(iter(wrong))]


# Names in `.env`.


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("EMIAL_HOST=", "EMIAL_HOST: is in .env, but there is no such setting; did you mean EMAIL_HOST?"),
        ("otp_digts=8", "OTP_DIGTS: is in .env, but there is no such setting; did you mean OTP_DIGITS?"),
        ("COLOUR_OF_THE_SKY=blue", "COLOUR_OF_THE_SKY: is in .env, but there is no such setting"),
        ("\nFOO=25", f".env: line 3: {_NO_SETTING}"),
    ],
)
def test_a_misspelt_setting_in_the_file(problems: Problems, tmp_path: Path, line: str, problem: str) -> None:
    """A name in `.env` that is no setting is refused with the nearest setting, and without its value."""
    (tmp_path / ".env").write_text(f"EMAIL_PORT=465\n{line}\n")
    assert problems() == (problem,)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SMTP_HOST", "EMAIL_HOST"),
        ("EMAIL_USER", "EMAIL"),
        ("smtp_password", "APP_PASSWORD"),
        ("EMAIL_PASSWORD", "APP_PASSWORD"),
        ("MAIL_FROM", "EMAIL_FROM"),
    ],
)
def test_a_usual_name_of_other_programs(problems: Problems, tmp_path: Path, name: str, meant: str) -> None:
    """For a name that other programs use, the setting of the same meaning is proposed, not one of like letters."""
    (tmp_path / ".env").write_text(f"{name}=x\n")
    assert problems() == (f"{name.upper()}: is in .env, but there is no such setting; did you mean {meant}?",)


def test_the_usual_names_lead_to_settings() -> None:
    """Each name of other programs leads to a setting, and is no setting itself."""
    settings = {name for section in SECTIONS for name in section.variables()}
    assert settings.issuperset(MEANT.values())
    assert settings.isdisjoint(MEANT)


@pytest.mark.parametrize("line", ["EMIAL_FROM=shop@example.org", "EMAIL=me@example.org\nAPP_PASSWRD=hunter2"])
def test_a_misspelt_setting_is_not_missing_too(problems: Problems, tmp_path: Path, line: str) -> None:
    """The setting that was probably meant is not reported as missing beside its misspelt name."""
    (tmp_path / ".env").write_text(line)
    (problem,) = problems(EMAIL_FROM="")
    assert "did you mean" in problem


def test_other_programs_names(load: Load, tmp_path: Path) -> None:
    """Known names of other programs pass in `.env`; in the environment and in SECRETS_DIR any name does."""
    others = ("TARGET", "SECRETS_DIR", "OTPMAIL_SERVER", "CI", "PYTHON", "COMPOSE_PROJECT_NAME", "TZ", "tz")
    (tmp_path / ".env").write_text("".join(f"{name}=value\n" for name in others))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "DATABASE_PASSWORD").write_text("hunter2")
    assert load(SECRETS_DIR=str(secrets), EMIAL_HOST="mail.example.org").relay.host == "smtp.gmail.com"


# Sources that can't be read.


@pytest.mark.parametrize("faulty", ["APP_PASSWORD hunter2\n", "SECRETS_DIR=nowhere\n", "\xff"])
def test_what_is_known_beside_a_source_that_can_not_be_read(problems: Problems, tmp_path: Path, faulty: str) -> None:
    """Values that are wrong by themselves are reported too; nothing is called missing, since the rest is unknown."""
    (tmp_path / ".env").write_bytes(f"WORKERS=none\nEMIAL_HOST=a\n{faulty}".encode("latin-1"))
    names = _names(problems(PORT="x", EMAIL="me@example.org", HOST="0.0.0.0", EMAIL_FROM=""))
    known = [] if faulty == "\xff" else ["EMIAL_HOST", "PORT", "WORKERS"]
    assert names == [".env" if "=" not in faulty else "SECRETS_DIR", *(known or ["PORT"])]


def test_relays_beside_a_line_that_can_not_be_read(problems: Problems, tmp_path: Path) -> None:
    """A URL says all about its relay, so a mistake in it is reported beside a line of `.env` that can't be read."""
    (tmp_path / ".env").write_text("EMAIL_FROM shop@example.org\n")
    lines = problems(EMAIL_RELAYS="ftp://a smtp://u@b", EMAIL_HOST="c", EMAIL_FROM="")
    assert [line[:30] for line in lines] == [
        ".env: line 1: is neither NAME=",
        "EMAIL_RELAYS: relay 1: scheme:",
        "EMAIL_RELAYS: relay 2: passwor",
    ]


def test_lines_after_an_open_quote_are_not_read(problems: Problems, tmp_path: Path) -> None:
    """Lines after a quote that is not closed may be part of a secret: no name and no value of them is shown."""
    (tmp_path / ".env").write_text("WORKERS=none\nOTP_KEYS='k1:\nhunter2==\nPORT=hunter2\n")
    assert _names(problems()) == [".env", "WORKERS"]


def test_a_file_in_the_secrets_directory_may_be_overruled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line of `.env` that can't be read may set what a secret sets, so the secret is not judged."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "PORT").write_text("x")
    monkeypatch.setenv("SECRETS_DIR", "secrets")
    with pytest.raises(SettingsError, match=r"^PORT: 'x' is wrong: "):
        load_section(ServerSettings)
    (tmp_path / ".env").write_text("PORT 1\n")
    with pytest.raises(SettingsError) as caught:
        load_section(ServerSettings)
    assert _names(caught.value.problems) == [".env"]


@pytest.mark.parametrize("name", ["PORT", "LOG_LEVEL", "HOST", "EMAIL_FROM", "EMAIL_FROM_ALLOWED", "SECRETS_DIR"])
@pytest.mark.parametrize("character", ["x", "\U000e0041", "\\"])
def test_a_long_wrong_value_is_cut(problems: Problems, name: str, character: str) -> None:
    """A line repeats a hundred characters of a wrong value at most: a variable may hold a whole file."""
    (line,) = problems(**{name: character * 50_000})
    assert len(line) < 400
    assert line.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "good", "wrong", "why"),
    [
        ("HOST", "127.0.0.1", "a b", "is neither an IP address, nor unix:PATH, nor a name that can be resolved here"),
        ("HOST", "127.0.0.1", "::1:80x]", "is neither an IP address, nor unix:PATH, nor a name that can be resolved"),
        ("HTTP_ALLOWED_HOSTS", "a.example", "B:80", "is not the name of a host without a port, such as mail.example"),
        ("HTTP_CORS_ORIGINS", "https://a.example", "a.example", "is not an origin as browsers write it, such as http"),
        ("LIMITS_MODE", "block=shadow", "Blok=shadow", "is neither enforce nor shadow, nor limit=mode, such as block="),
        ("LIMITS_MODE", "enforce", "off", "is neither enforce nor shadow, nor limit=mode, such as block=shadow; the "),
        ("LIMITS_MODE", "block=shadow", "Failures=shadow", "can't be: the limits of wrong codes"),
    ],
)
def test_the_wrong_entry_of_a_list(problems: Problems, name: str, good: str, wrong: str, why: str) -> None:
    """The line about a list names the entry that is wrong, once, and nothing that is right."""
    (line,) = problems(**{name: f"{good},{wrong}"})
    assert line.startswith(f"{name}: {wrong!r} {why}")
    assert line.count(wrong) == 1
    assert f"'{good}" not in line
    (line,) = problems(**{name: wrong})
    assert line.startswith(f"{name}: {wrong!r} {why}")
