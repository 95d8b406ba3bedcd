"""Mails from templates: subject, text and HTML, compiled once and rendered with values by name.

A template is a folder with `subject.txt`, and `body.txt`, `body.html` or both. A value replaces `$name` and `${name}`;
`$$` is a dollar sign. Values are escaped in HTML. For codes, a directory holds such a folder for each locale, which may
have a file with the words for `$valid_for` (`compose.validity`).
"""

import re
from collections.abc import Mapping
from dataclasses import field
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from string import Template
from typing import Self

from otpmail.compose.template_files import read_text
from otpmail.compose.validity import ValidityWords
from otpmail.errors import InvalidArgument, SettingsError
from otpmail.settings import OtpSettings, quoted
from otpmail.values import frozen

SHIPPED = resources.files("otpmail").joinpath("templates", "code")


@frozen()
class Rendered:
    """A mail from a template, its values filled in."""

    subject: str = field(repr=False)  # these hold a code
    text: str = field(repr=False)
    html: str = field(repr=False)


@frozen()
class MailTemplate:
    """A compiled template: text, HTML or both, with the `names` of the values that it needs.

    `escaped` are the names in the HTML, whose values are escaped there.
    """

    subject: str
    text: str | None
    html: str | None
    names: frozenset[str]
    escaped: tuple[str, ...]

    @classmethod
    def read(cls, folder: Traversable) -> Self:
        """Read and compile a folder. Raises ValueError for a file that is missing or wrong."""
        subject = read_text(folder, "subject.txt")
        if subject is None:
            raise ValueError("subject.txt is missing")
        subject = subject.strip()
        if "\n" in subject:
            raise ValueError("subject.txt has more than one line")
        html, text = read_text(folder, "body.html"), read_text(folder, "body.txt")
        if html is None and text is None:
            raise ValueError("body.txt and body.html are missing; a template has one of them or both")
        given = [Template(part) for part in (subject, text or "", html or "")]
        if not all(template.is_valid() for template in given):
            raise ValueError("has a $ that begins no name; write $$ for a dollar sign")
        names = [tuple(template.get_identifiers()) for template in given]
        return cls(
            _compiled(subject),
            None if text is None else _compiled(text),
            html and _compiled(html),
            frozenset(name for part in names for name in part),
            names[-1],
        )

    def render(self, values: Mapping[str, str]) -> Rendered:
        """Fill in the template. Raises KeyError with a name that `values` lacks."""
        html = "" if self.html is None else self.html % {name: escape(values[name]) for name in self.escaped}
        return Rendered(self.subject % values, "" if self.text is None else self.text % values, html)


def _compiled(text: str) -> str:
    """Translate a valid template into a format for `%`."""
    # fast path: `%` in place of string.Template, 2 us a part; held to the full path by tests/compose/test_templates.py

    def form(match: re.Match[str]) -> str:
        """Return a placeholder, or an escaped dollar sign, as `%` has it."""
        name = match["named"] or match["braced"]
        return f"%({name})s" if name else "$"

    return Template.pattern.sub(form, text.replace("%", "%%"))


class Templates:
    """The templates of the mail with a code, one for each locale of a directory."""

    def __init__(self, folder: Traversable, *, default_locale: str) -> None:
        self.by_locale: dict[str, tuple[MailTemplate, ValidityWords]] = {}
        try:
            entries = list(folder.iterdir())
        except OSError as error:
            raise SettingsError(f"OTP_TEMPLATES_DIR: can't be read: {error.strerror}") from None
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith(("_", ".")):
                try:
                    self.by_locale[_tag(entry.name)] = MailTemplate.read(entry), ValidityWords.read(entry)
                except ValueError as error:
                    raise SettingsError(f"OTP_TEMPLATES_DIR: {entry.name}: {error}") from None
        if _tag(default_locale) not in self.by_locale:
            known = ", ".join(sorted(self.by_locale)) or "none"
            raise SettingsError(f"OTP_LOCALE: there is no template for {quoted(default_locale)}; there are: {known}")
        self._default = self.by_locale[_tag(default_locale)]

    @classmethod
    def load(cls, settings: OtpSettings) -> Self:
        """Load OTP_TEMPLATES_DIR, else the shipped templates. Raises SettingsError naming the one that is wrong."""
        return cls(settings.templates_dir or SHIPPED, default_locale=settings.locale)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Templates):
            return NotImplemented
        return self.by_locale == other.by_locale and self._default == other._default

    def __hash__(self) -> int:
        return hash(frozenset(self.by_locale))

    def __repr__(self) -> str:
        return f"<Templates {', '.join(sorted(self.by_locale))}>"

    def render(self, locale: str, values: Mapping[str, str], *, valid_seconds: float) -> Rendered:
        """Render the mail in `locale`, else in its language, else in the default (BCP 47 lookup, RFC 4647, 3.4).

        `valid_seconds` is how long the code is still valid; it fills in `$valid_for` and `$minutes`. Raises
        InvalidArgument naming `variables` when the template needs one that is missing.
        """
        tag = _tag(locale)
        found = self.by_locale.get(tag)
        while found is None and tag:
            tag = tag.rpartition("-")[0]
            found = self.by_locale.get(tag)
        template, words = found or self._default
        try:
            return template.render({**values, **words.values(valid_seconds)})
        except KeyError as error:
            raise InvalidArgument("variables", f"the template needs {error.args[0]!r}") from None


def _tag(locale: str) -> str:
    """A language tag in one spelling: pt_BR and pt-br are the same."""
    return locale.lower().replace("_", "-")
