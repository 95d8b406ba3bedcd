"""Reads the files in SECRETS_DIR that are named like settings: Docker and Kubernetes hand over secrets in that form."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from otpmail.settings.problems import quoted
from otpmail.settings.secret_file import is_readable_directory, read_text
from otpmail.settings.spoilt import ASCII_SPACE, fault_at_ends

DEFAULT = "/run/secrets"
"""Used when SECRETS_DIR is not set."""


@dataclass(frozen=True, slots=True, repr=False)  # a repr would show secrets
class SecretsDir:
    """The content of the directory: values by the settings' names, and why a file, or the whole, can't be read."""

    values: Mapping[str, str]
    faults: Mapping[str, str]
    """The path of a file and what is wrong with it, by the name of its setting."""
    unreadable: tuple[str, ...] = ()
    """A line when the directory itself can't be read."""


def read(named: str, settings: Collection[str], *, default: str = DEFAULT) -> SecretsDir:
    """Read the directory that SECRETS_DIR names, else the default, which need not exist or be open to this user.

    Files that are not named like one of `settings`, in any case, are not opened: they are other programs' secrets.
    """
    directory = Path(named or default)
    if not named and not is_readable_directory(directory):
        return SecretsDir({}, {})
    try:
        paths = sorted(directory.iterdir(), reverse=True)  # so that a name in capitals, which comes last, wins
    except (NotADirectoryError, FileNotFoundError, ValueError):  # ValueError: a null can't be part of a path
        problem = f"SECRETS_DIR: {quoted(named)} is not a directory"
        return SecretsDir({}, {}, (problem,) if named else ())
    except OSError as error:
        return SecretsDir({}, {}, (f"SECRETS_DIR: {quoted(str(directory))} can't be read: {error.strerror}",))
    values: dict[str, str] = {}
    faults: dict[str, str] = {}
    for path in paths:
        if path.name.upper() in settings:
            try:
                values[path.name.upper()] = _read_file(path, directory)
            except ValueError as error:
                faults[path.name.upper()] = f"{path} {error}"
    return SecretsDir(values, faults)


def _read_file(path: Path, directory: Path) -> str:
    """The text without the white space around it. Raises ValueError with what is wrong."""
    text = read_text(path).strip(ASCII_SPACE)
    if text and (fault := fault_at_ends(text)):
        raise ValueError(fault)
    if directory.resolve() not in path.resolve().parents:
        raise ValueError("is a link that leads out of the directory")
    return text
