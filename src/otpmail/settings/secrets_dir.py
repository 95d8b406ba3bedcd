"""Reads the files in SECRETS_DIR that are named like settings: Docker and Kubernetes hand over secrets in that form."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT = "/run/secrets"
"""Used when SECRETS_DIR is not set."""


@dataclass(frozen=True, slots=True, repr=False)  # a repr would show secrets
class SecretsDir:
    """The content of the directory: values by the settings' names, and why a file, or the whole, can't be read."""

    values: Mapping[str, str]
    faults: Mapping[str, str]
    """The fault of a file, by the name of its setting."""
    unreadable: tuple[str, ...] = ()
    """A line when the directory itself can't be read."""


def read(named: str, settings: Collection[str]) -> SecretsDir:
    """Read the directory that SECRETS_DIR names, else the usual one, which need not exist.

    Files that are not named like one of `settings`, in any case, are not opened: they are other programs' secrets.
    """
    directory = Path(named or DEFAULT)
    if not named and not directory.is_dir():
        return SecretsDir({}, {})
    try:
        paths = sorted(directory.iterdir(), reverse=True)  # so that a name in capitals, which comes last, wins
    except (NotADirectoryError, FileNotFoundError):
        return SecretsDir({}, {}, (f"SECRETS_DIR: {named!r} is wrong: is not a directory",))
    except OSError as error:
        return SecretsDir({}, {}, (f"SECRETS_DIR: {str(directory)!r} can't be read: {error.strerror}",))
    values: dict[str, str] = {}
    faults: dict[str, str] = {}
    for path in paths:
        if path.name.upper() in settings and path.is_file():
            try:
                values[path.name.upper()] = _read_file(path, directory.resolve())
            except ValueError as error:
                faults[path.name.upper()] = str(error)
    return SecretsDir(values, faults)


def _read_file(path: Path, directory: Path) -> str:
    """The text without the white space around it. Raises ValueError with what is wrong."""
    if directory not in path.resolve().parents:
        raise ValueError("is a link that leads out of the directory")
    try:
        return path.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from None
