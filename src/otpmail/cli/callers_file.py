"""Changes CALLERS_FILE: a table is added, or a token to one; comments and all else stay as they are."""

import fcntl
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from otpmail.callers import table_of
from otpmail.errors import SettingsError
from otpmail.settings.caller_names import problem_of_name
from otpmail.settings.callers import CallersFile, Entry, parse_callers, read_callers_text
from otpmail.settings.problems import quoted
from otpmail.settings.profiles import ProfileRules

_NEW_MODE = 0o600
_HEAD = "# The callers of otpmail: docs/callers.md says what each key means. A change is in force within a second.\n"
_TOKENS = re.compile(r"^\s*tokens\s*=\s*\[", re.MULTILINE)
_OPTIONS = {
    "subjects": "--subject",
    "sans": "--san",
    "methods": "--methods",
    "from": "--from",
    "return_paths": "--return-paths",
    "priorities": "--priorities",
}
_RELAYS = ("EMAIL_RELAYS", "EMAIL_HOST", "EMAIL_PORT", "EMAIL")
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


Values = Mapping[str, Collection[str] | bool]
"""The keys of a table: a list of texts each, or true."""


def profile_rules(relays: Collection[str] | None = None) -> ProfileRules:
    """Return what the profiles of the file are checked by. Raises SettingsError for wrong settings of codes.

    Without the names of `relays` no relay of a profile is wrong.
    """
    from otpmail.otp.terms import Profiles
    from otpmail.settings import OtpSettings, load_section

    return Profiles(load_section(OtpSettings), relays).rules


def relays_at_hand() -> Sequence[str] | None:
    """Return the names of the relays that the settings name, None where these name none, or are wrong.

    The file may be checked where the settings of the service are not at hand.
    """
    from otpmail.settings.loader import Settings, read_sources

    sources = read_sources()
    given = {name for layer in sources.layers for name in layer}
    settings, problems = Settings.read(sources, {})
    if given.isdisjoint(_RELAYS) or not (settings.relays and problems.are_good(*_RELAYS)):
        return None
    return [relay.endpoint for relay in settings.relays]


def new_table(name: str, values: Values) -> str:
    """Return the text of a table for a caller, with those keys that have values."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in values.items() if value]
    return "\n".join([table_of(name), *lines]) + "\n"


def _toml_value(value: Collection[str] | bool) -> str:  # noqa: FBT001  a value among others
    return str(value).lower() if isinstance(value, bool) else f"[{', '.join(map(_toml_text, value))}]"


def append_table(
    path: Path, name: str, values: Values, methods: Collection[str], show: Callable[[], None] = lambda: None
) -> None:
    """Add a table to the file, and make a file that is missing. Raises SettingsError; nothing is changed then.

    `show` is called before the last step; when it raises, nothing is changed either. The error for a mistake in what
    is added names the option or argument that holds it: the file has no such line.
    """
    if problem := problem_of_name(name):
        raise SettingsError(f"NAME: {quoted(name)} {problem}")

    def add(text: str) -> str:
        """Return the text with the new table."""
        if any(entry.caller.name == name for entry in _entries(text, path, methods)):
            raise SettingsError(
                f"CALLERS_FILE: {path}: {name} is there already; `otpmail caller rotate {name}` gives it another token"
            )
        before = text or _HEAD
        end = "" if before.endswith("\n") else "\n"
        changed = f"{before}{end}\n{new_table(name, values)}"
        _check_form(changed, path, name)
        parse_callers(changed, path, methods, profile_rules(), _at_its_option)
        return changed

    _change(path, add, methods, show, make=True)


def _check_form(text: str, path: Path, name: str) -> None:
    """Raise SettingsError where a file that was good can't be followed by a table."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise SettingsError(
            f"CALLERS_FILE: {path}: the callers are written in braces, which no table can follow; write each as a "
            f"table, such as {table_of(name)}, or add {name} by hand"
        ) from None


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character TOML reads otherwise


def _at_its_option(path: tuple[str, ...], what: str) -> str:
    key = path[-1].partition("[")[0]  # the value is quoted, which says more than its place
    return f"{_OPTIONS.get(key, key)}: {what}"


def add_token(
    path: Path, name: str, digest: str, methods: Collection[str], show: Callable[[], None] = lambda: None
) -> int:
    """Add a token to the table of a caller, and return how many it has now. Calls and raises as `append_table` does."""
    counts: list[int] = []

    def add(text: str) -> str:
        """Return the text with one token more in the table."""
        found = next((entry for entry in _entries(text, path, methods) if entry.caller.name == name), None)
        if found is None:
            raise SettingsError(f"CALLERS_FILE: {path}: there is no caller {name}; `otpmail caller add {name}` adds it")
        counts.append(found.tokens + 1)
        changed = _with_token(text, path, name, digest)
        if _count_tokens(changed, path, name, methods) != counts[0]:  # what looked like its table is in a text
            raise _by_hand(path, name)
        return changed

    _change(path, add, methods, show, make=False)
    return counts[0]


def _count_tokens(text: str, path: Path, name: str, methods: Collection[str]) -> int:
    """Return how many tokens a caller has, 0 in a text that is no file of callers."""
    try:
        return next((entry.tokens for entry in _entries(text, path, methods) if entry.caller.name == name), 0)
    except SettingsError:
        return 0


def _with_token(text: str, path: Path, name: str, digest: str) -> str:
    head = re.search(rf"^\s*{re.escape(table_of(name))}[^\n]*$", text, re.MULTILINE)
    if head is not None:
        following = _TABLE.search(text, head.end())
        end = following.start() if following else len(text)
        if tokens := _TOKENS.search(text, head.end(), end):
            return f'{text[: tokens.end()]}"{digest}", {text[tokens.end() :]}'
        if "tokens" not in text[head.end() : end]:
            return f'{text[: head.end()]}\ntokens = ["{digest}"]{text[head.end() :]}'
    raise _by_hand(path, name)


def _by_hand(path: Path, name: str) -> SettingsError:
    return SettingsError(
        f"CALLERS_FILE: {path}: {name} is not written as {table_of(name)}; write it so, or add to its `tokens` by hand "
        "what `printf %s TOKEN | sha256sum | cut -c1-64` prints for a random TOKEN"
    )


def _entries(text: str, path: Path, methods: Collection[str]) -> Sequence[Entry]:
    return () if _names_nobody(text) else parse_callers(text, path, methods, profile_rules()).entries


def _names_nobody(text: str) -> bool:
    """Whether a text has no table yet, as one of comments alone. The service refuses it, and a table may follow it."""
    try:
        return tomllib.loads(text) in ({}, {"callers": {}})
    except (ValueError, RecursionError):
        return False


def _change(
    path: Path, change: Callable[[str], str], methods: Collection[str], show: Callable[[], None], *, make: bool
) -> CallersFile:
    """Replace the text of the file by another that can be read, in one step, with its owner and permissions."""
    path = Path(os.path.realpath(path))  # `resolve` fails for a link to itself
    try:
        with _locked(path.parent):
            is_new = make and not os.path.lexists(path)
            text = change("" if is_new else read_callers_text(path))
            changed = parse_callers(text, path, methods, profile_rules())
            _replace(path, text, show, is_new=is_new)
            return changed
    except OSError as error:
        raise SettingsError(f"CALLERS_FILE: {path} can't be written: {error.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one command at a time change files in the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str, show: Callable[[], None], *, is_new: bool) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if is_new:
                os.fchmod(descriptor, _NEW_MODE)
            else:
                before = path.stat()
                os.fchmod(descriptor, before.st_mode & 0o7777)
                with suppress(PermissionError):  # only root gives files away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        show()
        os.replace(name, path)  # noqa: PTH105  the name is a text already
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108  as above
        raise
