"""SECRETS_DIR: where it may be named, which of its files are read, and what is reported of those that can't be."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from otpmail.settings import secrets_dir
from settings.conftest import Load, Problems
from users import as_another_user, folder_for_all


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty directory that SECRETS_DIR names."""
    (tmp_path / "secrets").mkdir()
    monkeypatch.setenv("SECRETS_DIR", "secrets")
    return tmp_path / "secrets"


def test_where_it_is_named(monkeypatch: pytest.MonkeyPatch, load: Load, problems: Problems, tmp_path: Path) -> None:
    """SECRETS_DIR is read from the environment, then from `.env`; a wrong one is reported wherever it stands."""
    for name, workers in {"one": "1", "two": "2"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "WORKERS").write_text(workers)
    (tmp_path / ".env").write_text("SECRETS_DIR=one\n")
    assert load().mail.workers == 1
    assert load(SECRETS_DIR="two").mail.workers == 2
    monkeypatch.setenv("SECRETS_DIR", "")
    for wrong in ("three", ".env", "th\0ree"):
        (tmp_path / ".env").write_text(f"SECRETS_DIR={wrong}\n")
        assert problems() == (f"SECRETS_DIR: {wrong!r} is not a directory",)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_the_default_need_not_be_open_to_this_user(mode: int) -> None:
    """The default directory is as if absent where this user may not list it or open its files."""
    with folder_for_all() as folder:
        (folder / "secrets").mkdir()
        (folder / "secrets/WORKERS").write_text("1")
        (folder / "secrets").chmod(mode)
        with as_another_user():
            found = secrets_dir.read("", {"WORKERS"}, default=str(folder / "secrets"))
    assert (found.values, found.faults, found.unreadable) == ({}, {}, ())


def test_white_space_around_a_secret_is_dropped(directory: Path, load: Load) -> None:
    """Editors end a file with a line end, which is no part of the secret."""
    (directory / "APP_PASSWORD").write_text(" hunter2\n")
    assert load(EMAIL="me").relay.password.get_secret_value() == "hunter2"


def test_a_name_in_capitals_wins(directory: Path, load: Load) -> None:
    """Of two files for one setting the one in capitals counts."""
    for name, value in {"workers": "1", "WORKERS": "2", "Workers": "3"}.items():
        (directory / name).write_text(value)
    assert load().mail.workers == 2


def test_links_as_kubernetes_makes_them(directory: Path, load: Load) -> None:
    """A mounted Secret is a link to a link inside of the directory, beside names that are no settings."""
    (directory / "..2026").mkdir()
    (directory / "..2026" / "WORKERS").write_text("7")
    (directory / "..data").symlink_to("..2026")
    (directory / "WORKERS").symlink_to("..data/WORKERS")
    assert load().mail.workers == 7


def test_a_file_that_can_not_be_used(directory: Path, problems: Problems, tmp_path: Path) -> None:
    """Each such file is one line that names its setting, and nothing is concluded from its absence."""
    (tmp_path / "outside").write_text("hunter2")
    (directory / "APP_PASSWORD").symlink_to("../outside")
    (directory / "OTP_KEYS").write_bytes(b"k1:\xff")
    assert problems(EMAIL="me@example.org") == (
        "APP_PASSWORD: secrets/APP_PASSWORD is a link that leads out of the directory",
        "OTP_KEYS: secrets/OTP_KEYS is not text in UTF-8",
    )


def _directory(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _huge(path: Path) -> None:
    path.write_bytes(b"x" * (1 << 20))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (_directory, "is a directory, as Docker makes it in place of a mounted file that is missing"),
        (_dangling, "is a link to nothing"),
        (_loop, "can't be read: Too many levels of symbolic links"),
        (_pipe, "is a socket, a pipe or a device, and no file"),
        (_socket, "is a socket, a pipe or a device, and no file"),
        (_huge, "is larger than 64 KiB"),
    ],
)
def test_what_is_no_file(directory: Path, problems: Problems, make: Callable[[Path], None], fault: str) -> None:
    """Anything else under a setting's name is one line, and nothing waits for it."""
    make(directory / "workers")
    assert problems() == (f"WORKERS: secrets/workers {fault}",)


def test_a_secret_that_ends_with_what_cannot_be_seen(directory: Path, problems: Problems) -> None:
    """Only white space of ASCII is dropped in silence."""
    (directory / "APP_PASSWORD").write_text("hunter2\xa0\n")
    fault = "ends with a no-break space (U+00A0); remove it"
    assert problems(EMAIL="me@example.org") == (f"APP_PASSWORD: secrets/APP_PASSWORD {fault}",)


def test_the_default_directory_may_be_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Load) -> None:
    """A default directory that does not exist, or is a file, sets nothing."""
    monkeypatch.setattr(secrets_dir, "DEFAULT", str(tmp_path / "run"))
    assert load().mail.workers == 5
    (tmp_path / "run").write_text("no directory")
    (tmp_path / "run").chmod(0o700)
    assert load().mail.workers == 5


def test_a_file_that_is_overruled_is_not_judged(directory: Path, load: Load) -> None:
    """A file that can't be used does not matter when its setting is set elsewhere."""
    (directory / "WORKERS").write_bytes(b"\xff")
    assert load(WORKERS="3").mail.workers == 3


def test_other_programs_secrets_are_not_opened(directory: Path) -> None:
    """Only files that are named like a setting are read."""
    (directory / "DATABASE_PASSWORD").write_text("hunter2")
    (directory / "PORT").write_text("1")
    assert secrets_dir.read("secrets", {"PORT"}).values == {"PORT": "1"}
