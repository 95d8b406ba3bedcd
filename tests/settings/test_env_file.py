"""`.env`: what it holds, and how a line that can't be read is reported."""

import time
from pathlib import Path

import pytest

from otpmail.settings import env_file
from settings.conftest import Load, Problems

_NEITHER = "is neither NAME=value nor a comment, which begins with #"
_QUOTE = "its quote is not closed, or text follows it"


def _read(directory: Path, text: str) -> env_file.EnvFile:
    (directory / ".env").write_text(text)
    return env_file.read({})


def test_values(tmp_path: Path) -> None:
    """Names come in capitals; comments, quotes, references and empty values are read as python-dotenv does."""
    text = "# comment\nport=1\nexport HOST='::1' # why\nEMAIL=\nEMAIL_FROM=${port}@x.org\nBARE\nKEY=\"a\nb\"\n"
    assert _read(tmp_path, text).values == {
        "PORT": "1",
        "HOST": "::1",
        "EMAIL": "",
        "EMAIL_FROM": "1@x.org",
        "BARE": "",
        "KEY": "a\nb",
    }


def test_no_file_sets_nothing() -> None:
    """A directory without `.env` is the same as one with an empty file."""
    assert env_file.read({}) == env_file.EnvFile({})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("PORT 8080\n", {1: _NEITHER}),
        ("PORT=1\n\n \r\nhunter2 hunter2", {4: _NEITHER}),
        ("A='x\ny'\nB='hunter2\n", {3: _QUOTE}),
        ('PORT="1" 2\n# good\n=\n', {1: _QUOTE, 3: _NEITHER}),
    ],
)
def test_a_line_that_can_not_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, lines: dict[int, str]
) -> None:
    """The line is reported by its number and its fault alone, since its text may be a secret; nothing is logged."""
    read = _read(tmp_path, text)
    assert read.unreadable == tuple(f".env: line {number}: {fault}" for number, fault in lines.items())
    assert not caplog.records


def test_the_other_lines_are_read(tmp_path: Path) -> None:
    """A faulty line changes no other, unless it opens a quote: then those after it are unknown."""
    assert _read(tmp_path, "PORT=1\nHOST ::1\nWORKERS=2\n").values == {"PORT": "1", "WORKERS": "2"}
    assert _read(tmp_path, "PORT=1\nHOST='::1\nWORKERS=2\n").values == {"PORT": "1"}


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """A file in another encoding is one line."""
    (tmp_path / ".env").write_bytes(b"EMAIL_FROM=\xff@example.org\n")
    assert env_file.read({}) == env_file.EnvFile({}, (".env: is not text in UTF-8",))


def test_a_file_that_never_ends(tmp_path: Path) -> None:
    """A file that is too large for one of settings, or a device without an end, is named at once."""
    (tmp_path / ".env").symlink_to("/dev/zero")
    assert env_file.read({}).unreadable == (".env: is larger than 1 MiB, which is no file of settings",)


def test_a_file_with_many_names(tmp_path: Path) -> None:
    """The time for a file is proportional to its length: no line costs more for those before it."""
    begun = time.process_time()
    assert len(_read(tmp_path, "".join(f"NAME_{number}=a$b\n" for number in range(20_000))).values) == 20_000
    assert time.process_time() - begun < 10


def test_a_file_that_can_not_be_opened(tmp_path: Path) -> None:
    """The operating system's reason is reported in one line."""
    (tmp_path / ".env").mkdir()
    assert env_file.read({}) == env_file.EnvFile({}, (".env: can't be read: Is a directory",))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("KEY='a${HOME}b'", "a${HOME}b"),
        ("KEY='${x}'", "${x}"),
        ('KEY="a${HOME}b"', "a/homeb"),
        ("KEY=a${HOME}b", "a/homeb"),
        ("KEY=${x:-y}", "y"),
        ("KEY=${x:-}", ""),
        ("KEY=a$HOME", "a$HOME"),
        ("KEY='a #b'", "a #b"),
        ("KEY=a#b", "a#b"),
        ("KEY=#b", "#b"),
        ("export KEY='a' # why", "a"),
    ],
)
def test_references_and_comments(tmp_path: Path, line: str, value: str) -> None:
    """`${NAME}` is a reference except in single quotes, `$NAME` never; a comment needs white space before its #."""
    (tmp_path / ".env").write_text(f"{line}\n")
    read = env_file.read({"HOME": "/home"})
    assert (read.values, read.faults, read.comments) == ({"KEY": value}, {}, {})


def test_a_reference_to_nothing_is_a_fault(problems: Problems, tmp_path: Path) -> None:
    """A `${` that is part of a value is found, and not dropped; a later line replaces the fault with the value."""
    (tmp_path / ".env").write_text("\nAPP_PASSWORD=hunter${2}\nWORKERS=${x}\nWORKERS=2\n")
    fault = "refers by ${} to a name that is not set; single quotes keep a $"
    assert problems(EMAIL="me") == (f"APP_PASSWORD: line 2 of .env {fault}",)


@pytest.mark.parametrize("line", ["APP_PASSWORD=abc #def", "APP_PASSWORD=abc\t# why", "APP_PASSWORD= #abc"])
def test_a_secret_is_not_cut_at_a_comment(problems: Problems, tmp_path: Path, line: str) -> None:
    """A # in a password may belong to it, so it is an error that says so; other settings take comments."""
    (tmp_path / ".env").write_text(f"WORKERS=2 # why\n{line}\n")
    (found,) = problems(EMAIL="me")
    assert found.startswith("APP_PASSWORD: a comment begins at the # in line 2 of .env; put a value that holds a # ")


def test_the_environment_overrules_a_fault(load: Load, tmp_path: Path) -> None:
    """A fault in a line of `.env` does not matter when the environment has the setting."""
    (tmp_path / ".env").write_text("APP_PASSWORD=abc #def\nWORKERS=${x}\n")
    settings = load(EMAIL="me", APP_PASSWORD="hunter2", WORKERS="3")
    assert (settings.relay.password.get_secret_value(), settings.mail.workers) == ("hunter2", 3)
