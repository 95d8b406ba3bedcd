"""Reads the files of the templates of codes: a folder for each locale, in it the mail for all purposes or for one.

`subject.txt.j2`, `body.txt.j2` and `body.html.j2` are templates of Jinja2; without `.j2` they have `$name` in place of
values (`compose.templates`). `words.toml` has the words of a language. Folders that begin with `_` are for other
templates to include.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import field
from importlib.resources.abc import Traversable
from typing import Any

from otpmail.compose.jinja import SUFFIX
from otpmail.compose.locales import TAG, tag_of
from otpmail.compose.template_files import read_text
from otpmail.compose.templates import FILES, MailTemplate
from otpmail.compose.validity import FILE, ValidityWords
from otpmail.settings.profiles import PURPOSE
from otpmail.values import frozen

WORDS = "words.toml"
MAIL_FILES = frozenset({*FILES, *(f"{name}{SUFFIX}" for name in FILES), WORDS, FILE})
"""The names of files that are read in the folder of a language or a purpose."""

SHIPPED_PREFIX = "otpmail"
"""Where the shipped templates are, for others to extend: `otpmail/body.html.j2`."""


@frozen()
class PlainFiles:
    """A template with `$name` in place of values, and its words for a time."""

    template: MailTemplate
    times: ValidityWords


@frozen()
class JinjaFiles:
    """A template of Jinja2: the paths of its parts, empty where it has none. `times` are its own words for a time."""

    subject: str
    text: str
    html: str
    times: ValidityWords | None = None


Part = PlainFiles | JinjaFiles


@frozen()
class LocaleFiles:
    """The files of a locale: a mail for all purposes, mails by purpose, and words, as TOML has them."""

    usual: Part | None
    by_purpose: Mapping[str, Part] = field(hash=False)
    words: Mapping[str, Any] | None = field(hash=False)


@frozen()
class Files:
    """All that was read: locales by their tags, sources of Jinja2 by their paths, and the shipped words by tag.

    `others` are the paths of files of other names, and of folders without a file of a mail, which end with a slash.
    """

    locales: Mapping[str, LocaleFiles] | None = field(hash=False)
    sources: Mapping[str, str] = field(hash=False)
    words: Mapping[str, Mapping[str, Any]] = field(hash=False)
    others: tuple[str, ...] = field(default=(), compare=False)


_SUBJECT, _TEXT, _HTML = (f"{SHIPPED_PREFIX}/{name}{SUFFIX}" for name in FILES)
SHIPPED_PARTS = JinjaFiles(_SUBJECT, _TEXT, _HTML)


def read_files(folder: Traversable | None, shipped: Traversable) -> Files:
    """Read the files of a folder, if there is one, and the shipped ones. Raises ValueError, which names a file."""
    sources = {f"{SHIPPED_PREFIX}/{name}{SUFFIX}": _text(shipped, f"{name}{SUFFIX}") for name in FILES}
    words = {
        entry.name.removesuffix(".toml"): _toml(entry.name, entry.read_text("utf-8"))
        for entry in shipped.iterdir()
        if entry.name.endswith(".toml")
    }
    if folder is None:
        return Files(None, sources, words)
    locales = dict[str, LocaleFiles]()
    for entry in _entries(folder, ""):
        if not entry.is_dir():
            if entry.name.endswith(SUFFIX):
                sources[entry.name] = _text(folder, entry.name)
        elif entry.name.startswith("_"):
            _read_sources(entry, entry.name, sources)
        else:
            tag = tag_of(entry.name)
            _refuse_name(entry.name, TAG, "en or pt-BR, or begin with _ where others include it", tag in locales)
            locales[tag] = _read_locale(entry, sources)
    others = [path for entry in _entries(folder, "") if tag_of(entry.name) in locales for path in _others(entry)]
    return Files(locales, sources, words, tuple(others))


def _others(folder: Traversable, parent: str = "") -> Iterator[str]:
    """Yield the paths of files that are not read in a folder of a language, and of folders that have no mail."""
    path, entries = f"{parent}{folder.name}", list(_entries(folder, folder.name))
    if parent and not any(entry.name in MAIL_FILES or entry.name.endswith(SUFFIX) for entry in entries):
        yield f"{path}/"
    for entry in entries:
        if not entry.is_dir():
            if entry.name not in MAIL_FILES:
                yield f"{path}/{entry.name}"
        elif not parent and not entry.name.startswith("_"):
            yield from _others(entry, f"{path}/")


def _read_locale(folder: Traversable, sources: dict[str, str]) -> LocaleFiles:
    name = folder.name
    by_purpose = dict[str, Part]()
    for entry in _entries(folder, name):
        if entry.is_dir() and not entry.name.startswith("_"):
            path, purpose = f"{name}/{entry.name}", entry.name.lower()
            part = _read_part(entry, path, sources)
            if part is not None:
                _refuse_name(path, PURPOSE, "sign-up: 1 to 32 of a-z, 0-9, _ and -", purpose in by_purpose)
                by_purpose[purpose] = part
    words = _read_words(folder, name)
    usual = _read_part(folder, name, sources)
    if usual is None and not by_purpose and words is None:
        raise ValueError(f"{name}: subject.txt is missing, or subject.txt{SUFFIX} for a template of Jinja2")
    return LocaleFiles(usual, by_purpose, words)


def _read_words(folder: Traversable, name: str) -> dict[str, Any] | None:
    try:
        text = read_text(folder, WORDS)
    except ValueError as error:
        raise ValueError(f"{name}/{error}") from None
    return None if text is None else _toml(f"{name}/{WORDS}", text)


def _refuse_name(path: str, form: re.Pattern[str], example: str, is_there: bool) -> None:  # noqa: FBT001
    """Raise ValueError for a folder that no call can ask for, or whose name is there in another spelling."""
    if not form.fullmatch(path.rpartition("/")[2].lower()):
        raise ValueError(f"{path}: no call can ask for this name; it must be such as {example}")
    if is_there:
        raise ValueError(f"{path}: is there twice, in another spelling")


def _read_part(folder: Traversable, path: str, sources: dict[str, str]) -> Part | None:
    """Read the template in a folder, None where none of its files is there."""
    names = {entry.name for entry in _entries(folder, path)}
    _read_sources(folder, path, sources)
    jinja = [f"{path}/{name}{SUFFIX}" if f"{name}{SUFFIX}" in names else "" for name in FILES]
    if names.intersection(FILES):
        if any(jinja):
            raise ValueError(
                f"{path}: has {min(names.intersection(FILES))} beside files of Jinja2; name all of them {SUFFIX}"
            )
        try:
            return PlainFiles(MailTemplate.read(folder), ValidityWords.read(folder))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if not any(jinja):
        return None
    if not jinja[0] or not any(jinja[1:]):
        raise ValueError(f"{path}: needs subject.txt{SUFFIX}, and body.txt{SUFFIX}, body.html{SUFFIX} or both")
    try:
        return JinjaFiles(jinja[0], jinja[1], jinja[2], ValidityWords.read(folder) if FILE in names else None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_sources(folder: Traversable, path: str, sources: dict[str, str]) -> None:
    for entry in _entries(folder, path):
        if entry.name.endswith(SUFFIX) and not entry.is_dir():
            sources[f"{path}/{entry.name}"] = _text(folder, entry.name, f"{path}/")


def _entries(folder: Traversable, path: str) -> Iterator[Traversable]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}".removeprefix(": ")) from None
    for entry in entries:
        if not entry.name.startswith((".", "__")):
            _refuse_other_than_file(entry, path)
            yield entry


def _refuse_other_than_file(entry: Traversable, path: str) -> None:
    """Raise ValueError for a template that is a directory, a pipe, or a link to nothing."""
    if entry.name.endswith(SUFFIX) and not entry.is_file():
        raise ValueError(f"{path}/{entry.name}: is not a file".removeprefix("/"))


def _text(folder: Traversable, name: str, prefix: str = "") -> str:
    try:
        return read_text(folder, name) or ""
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def _toml(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
