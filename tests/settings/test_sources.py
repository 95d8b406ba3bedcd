"""Values that were spoilt on their way into the settings: quotes, line ends, characters that cannot be seen."""

from pathlib import Path

import pytest

from settings.conftest import Load, Problems

_SETTINGS = ["APP_PASSWORD", "EMAIL_HOST", "PORT", "OTP_KEYS"]


@pytest.mark.parametrize("name", _SETTINGS)
@pytest.mark.parametrize("value", ["'hunter2'", '"hunter2"', "''"])
def test_quotes_in_the_environment(problems: Problems, name: str, value: str) -> None:
    """Docker's --env-file keeps quotes, which is an error of one line that does not show the value."""
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name}: is in quotes, which Docker's --env-file ")
    assert "hunter2" not in line


def test_quotes_that_belong_to_a_value(load: Load, tmp_path: Path) -> None:
    """A password that has quotes can be given by `.env`, in other quotes, or by a file."""
    (tmp_path / ".env").write_text("""APP_PASSWORD='"hunter2"'\n""")
    assert load(EMAIL="me").relay.password.get_secret_value() == '"hunter2"'
    (tmp_path / ".env").unlink()
    (tmp_path / "password").write_text('"hunter2"\n')
    assert load(EMAIL="me", APP_PASSWORD_FILE="password").relay.password.get_secret_value() == '"hunter2"'


@pytest.mark.parametrize("name", _SETTINGS)
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("hunter2\r", "ends with a carriage return, as in a file with Windows line ends; remove it"),
        ("hunter2\xa0", "ends with a no-break space (U+00A0); remove it"),
        ("\u200bhunter2", "begins with a zero-width space (U+200B); remove it"),
        ("“hunter2”", "is in the quotes “ and ”, as word processors make them; remove them"),
        ("hunter2\u2060", "ends with an invisible character (U+2060); remove it"),
    ],
)
def test_what_cannot_be_seen(problems: Problems, name: str, value: str, fault: str) -> None:
    """An invisible character at an end of a value is named, in one line that does not show the value."""
    assert problems(**{name: value}) == (f"{name}: {fault}",)


def test_what_cannot_be_seen_in_the_file(load: Load, problems: Problems, tmp_path: Path) -> None:
    """Values in `.env` are looked at too, in quotes or without; a line end of Windows does not belong to them."""
    for line in ('APP_PASSWORD="hunter2\xa0"\n', "APP_PASSWORD=hunter2\xa0\r\n", "APP_PASSWORD=hunter2\xa0 "):
        (tmp_path / ".env").write_text(line, newline="")
        assert problems() == ("APP_PASSWORD: ends with a no-break space (U+00A0); remove it",)
    (tmp_path / ".env").write_text("APP_PASSWORD=hunter2 \r\nWORKERS=2\r\n", newline="")
    settings = load(EMAIL="me")
    assert (settings.relay.password.get_secret_value(), settings.mail.workers) == ("hunter2", 2)


def test_other_spaces_and_quotes_are_kept(load: Load) -> None:
    """A password may hold any printable character, at its ends too."""
    for password in (" hunter2 ", "'hunter2", 'hunter2"', "'", "hünter2'"):
        assert load(EMAIL="me", APP_PASSWORD=password).relay.password.get_secret_value() == password
