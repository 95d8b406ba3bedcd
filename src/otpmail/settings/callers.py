"""Reads CALLERS_FILE: a table for each caller, with its tokens, its certificates, and what it may do."""

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from otpmail.callers import ANONYMOUS, Caller, Callers, Permissions, Rates, Shares, head_of, table_of, toml_key
from otpmail.counts import counted
from otpmail.errors import SettingsError
from otpmail.model import Priority
from otpmail.settings.caller_names import digest, problem_of_name, san, subject
from otpmail.settings.caller_values import meant, methods_of, priority_of, sender_of
from otpmail.settings.otp import RATES
from otpmail.settings.problems import quoted
from otpmail.settings.profiles import ProfileReader, ProfileRules
from otpmail.settings.secret_file import NOT_THERE, read_text
from otpmail.settings.toml_lines import TomlLines, line_beyond_bounds, split_error

USUAL_PRIORITIES = (Priority.NORMAL, Priority.BULK)
"""Those of a caller without `priorities`: urgent mails would make the codes of others wait."""

_MOST_OCTETS = 4 << 20
_MOST_COUNT = 10_000_000
_MAY = ("methods", "from", "return_paths", "priorities", "codes_per_hour", "guesses_per_hour", *RATES, "profiles")
_KEYS = ("tokens", "subjects", "sans", *_MAY, "queue_share", "memory_share", "operator")

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Entry:
    """A caller as the file has it: how many tokens it has, and the names in its certificates, with its line then."""

    caller: Caller
    tokens: int
    certificates: tuple[str, ...]
    line: int

    @property
    def is_shut_out(self) -> bool:
        """Whether nobody can call as it. So an operator takes back a token that others know, and keeps the rest."""
        return not self.tokens and not self.certificates


@dataclass(frozen=True, slots=True)
class CallersFile:
    """The content of the file: the callers as `api.auth` looks them up, and each as the file has it."""

    callers: Callers
    entries: tuple[Entry, ...]

    @property
    def summary(self) -> str:
        """How many callers there are, in words."""
        return f"{counted(len(self.entries), 'caller')}{' and anonymous' * (self.callers.anonymous is not None)}"


def read_callers(path: Path, methods: Collection[str], rules: ProfileRules | None = None) -> CallersFile:
    """Read and check the file; `methods` are the paths of all methods there are.

    Raises SettingsError with a line for each mistake, which names the line of the file and the key.
    """
    return parse_callers(read_callers_text(path), path, methods, rules)


def read_callers_text(path: Path) -> str:
    """Return the text of the file. Raises SettingsError for one that can't be read."""
    try:
        return read_text(path, most_octets=_MOST_OCTETS)
    except ValueError as error:
        problem = str(error)
        if problem == NOT_THERE:
            problem += f"; otpmail caller add NAME --file {path} makes it"
        raise SettingsError(f"CALLERS_FILE: {path} {problem}") from None


def parse_callers(
    text: str,
    path: Path,
    methods: Collection[str],
    rules: ProfileRules | None = None,
    describe: Callable[[tuple[str, ...], str], str] | None = None,
) -> CallersFile:
    """Check the text of a file; raises as `read_callers`.

    `describe` words a mistake by the keys that lead to it and by what is wrong there, in place of the line of the file.
    """
    reader = _Reader(path, text, methods, rules or ProfileRules())
    if describe is not None:
        reader.describe = describe
    found = reader.read()
    if reader.problems:
        raise SettingsError(*reader.problems)
    return found


class _Reader:
    """One reading: each problem is kept, and the value before it is left out."""

    def __init__(self, path: Path, text: str, methods: Collection[str], rules: ProfileRules) -> None:
        self._path = path
        self._text = text
        self._methods = methods
        self._profiles = ProfileReader(rules, path.parent, self._add, self._unknown)
        self._by_token: dict[bytes, Caller] = {}
        self._by_certificate: dict[str, Caller] = {}
        self.problems: list[str] = []
        self.describe: Callable[[tuple[str, ...], str], str] = self._at_its_line

    @cached_property
    def _lines(self) -> TomlLines:
        """The lines of the keys, which take longer to find than the callers: a file without mistakes needs few."""
        return TomlLines(self._text)

    def read(self) -> CallersFile:
        """Return the callers, good ones if no problem was found."""
        tables = self._parse()
        known = ("callers", "anonymous")
        for key in tables:
            if key not in known:
                self._unknown(key, known)
        anonymous = None
        if "anonymous" in tables:
            caller = Caller(ANONYMOUS.name, self._permissions(("anonymous",), tables["anonymous"], _MAY))
            anonymous = caller
        callers = tables.get("callers", {})
        if not isinstance(callers, dict):
            self._add(("callers",), "is no table; write a table for each caller, such as [callers.shop]")
            callers = {}
        entries = [self._entry(name, table) for name, table in callers.items()]
        if not (entries or anonymous or self.problems):
            self.problems.append(f"CALLERS_FILE: {self._path} names no caller; otpmail caller add NAME adds one")
        return CallersFile(Callers(self._by_token, self._by_certificate, anonymous), tuple(entries))

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            line, said = split_error(error, self._text)
            self.problems.append(f"CALLERS_FILE: {self._path}: line {line}: {said}")
        except (RecursionError, ValueError):  # which tomllib lets through
            line = line_beyond_bounds(self._text)
            self.problems.append(f"CALLERS_FILE: {self._path}: line {line}: holds too long a number, or lists too deep")
        return {"anonymous": {}}

    def _entry(self, name: str, table: object) -> Entry:
        path = ("callers", name)
        if problem := problem_of_name(name):
            self._add(path, problem)
        caller = Caller(name, self._permissions(path, table, _KEYS))
        if not isinstance(table, dict):
            return Entry(caller, 0, (), 0)
        tokens = set(self._list(path, "tokens", table, partial(self._take_token, caller)))
        certificates = [
            *self._list(path, "subjects", table, partial(self._take_certificate, caller, subject)),
            *self._list(path, "sans", table, partial(self._take_certificate, caller, san)),
        ]
        if not (table.keys() & {"tokens", "subjects", "sans"}):
            self._add(path, "has neither tokens nor subjects nor sans, so nobody can call as it")
        line = self._lines.find(*path) if certificates else 0
        return Entry(caller, len(tokens), tuple(certificates), line)

    def _take_token(self, caller: Caller, text: str) -> bytes:
        return _taken(self._by_token, digest(text), caller, "a token")

    def _take_certificate(self, caller: Caller, read: Callable[[str], str], text: str) -> str:
        certificate = read(text)
        return _taken(self._by_certificate, certificate, caller, f"the {quoted(certificate)}")

    def _permissions(self, path: tuple[str, ...], table: object, keys: Collection[str]) -> Permissions:
        if not isinstance(table, dict):
            self._add(path, "is no table")
            return Permissions(priorities=USUAL_PRIORITIES)
        for key, value in table.items():
            if key not in keys:
                self._unknown(key, keys, path, is_table=isinstance(value, dict))
        methods = frozenset(
            path
            for found in self._list(path, "methods", table, partial(methods_of, among=self._methods))
            for path in found
        )
        senders = frozenset(self._list(path, "from", table, sender_of))
        return_paths = frozenset(self._list(path, "return_paths", table, sender_of))
        priorities = tuple(self._list(path, "priorities", table, priority_of))
        return Permissions(
            methods=methods if "methods" in table else None,
            senders=senders if "from" in table else None,
            return_paths=return_paths if "return_paths" in table else senders if "from" in table else None,
            priorities=priorities if "priorities" in table else USUAL_PRIORITIES,
            shares=self._shares(path, table),
            operate=self._operator(path, table),
            codes_per_hour=self._count(path, "codes_per_hour", table),
            guesses_per_hour=self._count(path, "guesses_per_hour", table),
            profiles=self._profiles.read((*path, "profiles"), table["profiles"]) if "profiles" in table else None,
            rates=self._rates(path, table),
        )

    def _rates(self, path: tuple[str, ...], table: Mapping[str, Any]) -> Rates | None:
        """Return the rates of a caller, None where it has none."""
        found = Rates(*[self._count(path, key, table) for key in RATES])
        if found.mails_per_hour and found.mails_per_day and found.mails_per_hour > found.mails_per_day:
            self._add((*path, "mails_per_hour"), "has no effect, as it is above mails_per_day")
        return None if found == Rates() else found

    def _operator(self, path: tuple[str, ...], table: Mapping[str, Any]) -> bool:
        found = table.get("operator", False) if path[0] == "callers" else False
        if not isinstance(found, bool):
            self._add((*path, "operator"), "must be true or false, without quotes")
        return found is True

    def _count(self, path: tuple[str, ...], key: str, table: Mapping[str, Any]) -> int | None:
        """Return a count above 0, None where it is not given."""
        count = table.get(key)
        if count is None or (isinstance(count, int) and not isinstance(count, bool) and 0 < count <= _MOST_COUNT):
            return count
        self._add((*path, key), f"must be a whole number from 1 to {_MOST_COUNT}")
        return None

    def _shares(self, path: tuple[str, ...], table: Mapping[str, Any]) -> Shares | None:
        """Return the shares of a caller, None where it has no bounds of its own."""
        shares = {}
        for key in ("queue_share", "memory_share"):
            share = table.get(key, 1.0)
            if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
                self._add((*path, key), "must be a number above 0 and at most 1, such as 0.25 for a quarter")
                share = 1.0
            shares[key] = float(share)
        found = Shares(shares["queue_share"], shares["memory_share"])
        return None if found == Shares() else found

    def _list(
        self, path: tuple[str, ...], key: str, table: Mapping[str, Any], read: Callable[[str], ValueT]
    ) -> Iterator[ValueT]:
        """Yield what `read` makes of each text in a list; it raises ValueError that says what is wrong."""
        values = table.get(key, [])
        if not isinstance(values, list):
            self._add((*path, key), f'is no list of texts; write {key} = ["...", "..."]')
            return
        for place, value in enumerate(values):
            if not isinstance(value, str):
                self._add((*path, f"{key}[{place}]"), "is no text in quotes")
                continue
            try:
                yield read(value)
            except ValueError as error:
                self._add((*path, f"{key}[{place}]"), str(error))

    def _unknown(self, key: str, known: Collection[str], path: tuple[str, ...] = (), *, is_table: bool = False) -> None:
        hint = meant(key, known)
        if is_table and path[:1] == ("callers",) and not hint:
            hint = f"; a name with a dot is in quotes, as in {head_of('callers', f'{path[1]}.{key}')}"
        hint = hint or f"; there are {', '.join(known)}"
        self._add((*path, key), f"is no key of this table{hint}")

    def _add(self, path: tuple[str, ...], what: str) -> None:
        self.problems.append(self.describe(path, what))

    def _at_its_line(self, path: tuple[str, ...], what: str) -> str:
        *table, key = path
        line = self._lines.find(*path)
        at = f"line {line}: " if line else ""
        shown = key if key.isprintable() else toml_key(key)
        where = table_of(key) if table == ["callers"] else f"{head_of(*table)} {shown}" if table else ""
        return f"CALLERS_FILE: {self._path}: {at}{where or quoted(key)} {what}"


def _taken(by: dict[ValueT, Caller], value: ValueT, caller: Caller, shown: str) -> ValueT:
    """Note whose value it is. Raises ValueError where it is of another caller."""
    other = by.setdefault(value, caller)
    if other is not caller:
        raise ValueError(f"is {shown} that {table_of(other.name)} has too; each is of one caller")
    return value
