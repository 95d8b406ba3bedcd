"""Reads the sections, and says in words all that is wrong with them as far as it can be known."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from otpmail.address import parse_mailbox
from otpmail.errors import InvalidArgument, SettingsError
from otpmail.settings.describe import may_be
from otpmail.settings.relays import in_parts, parse_relay, urls
from otpmail.settings.sections import SECRETS, MailSettings, Problem, RelaySettings, Section

SectionT = TypeVar("SectionT", bound=Section)


class Reading:
    """One reading of the settings, in which all that is wrong is gathered, to be told in one go.

    A wrong setting is read as its default, so that the others can be looked at, and nothing is concluded from it.
    """

    def __init__(self, secrets_dir: Path | None, problems: Iterable[Problem] = ()) -> None:
        self.problems = list(problems)
        self._secrets_dir = secrets_dir
        # The names of settings that are wrong by themselves.
        self._wrong = {name for problem in self.problems for name in problem.names}

    def end(self) -> None:
        """Raise SettingsError with a line for each problem, if there is one."""
        if self.problems:
            raise SettingsError(*(problem.line for problem in self.problems))

    def section(self, section: type[SectionT], fixed: Mapping[str, str | None]) -> SectionT:
        """Read one section; settings in `fixed`, by name, are not asked for."""
        keys = section.variables()
        given: dict[str, Any] = {keys[variable]: value for variable, value in fixed.items() if variable in keys}
        # pydantic-settings takes the directory as a keyword that its signature leaves to **values.
        make: Callable[..., SectionT] = section
        try:
            loaded = make(**given, _secrets_dir=self._secrets_dir)
        except ValidationError as error:
            found = [_problem(section, details) for details in error.errors(include_url=False)]
            self.problems += found
            self._wrong.update(name for problem in found for name in problem.names)
            given |= {keys[name]: default for name, default in section.defaults().items() if name in self._wrong}
            loaded = make(**given, _secrets_dir=self._secrets_dir)
        self.problems += [conflict for conflict in loaded.conflicts() if self._known(*conflict.names)]
        return loaded

    def relays(self, mail: MailSettings, relay: RelaySettings) -> tuple[RelaySettings, ...]:
        """The relays of EMAIL_RELAYS, or the one of the EMAIL_ settings; none where that can't be known.

        What a URL does not say, a timeout or a limit, they have from those settings alike.
        """
        if not self._known("EMAIL_RELAYS"):
            return ()
        texts = urls(mail.email_relays.get_secret_value())
        if not texts:
            return (relay,)
        if "host" in relay.model_fields_set and self._known("EMAIL_HOST"):
            self._add("EMAIL_HOST", "EMAIL_RELAYS names all relays, and takes its place; set one of the two")
        places: dict[tuple[str, int], int] = {}
        relays = []
        for place, text in enumerate(texts, 1):
            read, wrong = self._relay(text)
            if read is not None:
                relays.append(read)
            if wrong:
                self._wrong.add("EMAIL_RELAYS")
            elif read is not None:
                first = places.setdefault((read.host, read.port), place)
                if first < place:
                    wrong.append(f"{read.host}:{read.port} is relay {first} already, and may stand there once")
            for words in wrong:
                self._add("EMAIL_RELAYS", f"relay {place}: {words}")
        return tuple(relays)

    def _relay(self, text: str) -> tuple[RelaySettings | None, list[str]]:
        """One of EMAIL_RELAYS, if it is a URL, and what is wrong with it."""
        try:
            entry = parse_relay(text)
        except ValueError as error:
            return None, [str(error)]
        reading = Reading(self._secrets_dir)
        relay = reading.section(RelaySettings, entry)
        # What all relays share is told with the settings that say it.
        own = [problem for problem in reading.problems if not entry.keys().isdisjoint(problem.names)]
        return relay, [in_parts(problem.line) for problem in own]

    def with_sender(self, mail: MailSettings, relays: tuple[RelaySettings, ...]) -> MailSettings:
        """EMAIL_FROM is EMAIL where it is not set: with Gmail and its like, the name to sign in with is the mailbox."""
        if mail.email_from or not relays or not self._known("EMAIL_FROM", "EMAIL", "EMAIL_RELAYS"):
            return mail
        user = relays[0].user
        try:
            parse_mailbox(user, "EMAIL")
        except InvalidArgument:
            whose = "the user of relay 1 in EMAIL_RELAYS" if mail.email_relays.get_secret_value() else "EMAIL"
            why = "is not a mailbox address to send from" if user else "is not set either"
            self._add("EMAIL_FROM", f"is needed, since {whose} {why}")
        return mail.model_copy(update={"email_from": user})

    def _known(self, *names: str) -> bool:
        return self._wrong.isdisjoint(names)

    def _add(self, name: str, words: str) -> None:
        self.problems.append(Problem(f"{name}: {words}", (name,)))


def _problem(section: type[Section], details: ErrorDetails) -> Problem:
    """One line: the setting, what it may be, and what it was unless that is a secret."""
    key = details["loc"][0]
    variable, known = next(names for names in section.variables().items() if key in names)
    shown = "" if variable in SECRETS else f"{details['input']!r} is wrong: "
    own_rule = details["type"] == "setting"
    words = details["msg"] if own_rule else f"must be {may_be(section.model_json_schema()['properties'][known])}"
    return Problem(f"{variable}: {shown}{words}", (variable,))
