"""Mails from templates: subject, text and HTML, compiled once and rendered with values by name.

Here a template is a folder with `subject.txt`, and `body.txt`, `body.html` or both. A value replaces `$name` and
`${name}`; `$$` is a dollar sign. Values are escaped in HTML. `otpmail merge` has such templates. Those of codes may
also be of Jinja2 (`compose.jinja`), and `compose.catalog` chooses among them.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from html import escape
from importlib.resources.abc import Traversable
from string import Template
from typing import Self

from otpmail.compose.template_files import read_text
from otpmail.values import frozen

FILES = ("subject.txt", "body.txt", "body.html")

_FIELD = re.compile(r"%%|%\((?P<name>[^)]*)\)s")


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
    _pieces: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    """The HTML as texts, with the name of a value between two of them."""

    def __post_init__(self) -> None:
        """Cut the HTML at its values."""
        object.__setattr__(self, "_pieces", _cut(self.html or ""))

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
        for name, template in zip(FILES, given, strict=True):
            if not template.is_valid():
                raise ValueError(
                    f"{name}:{_line_at_fault(template)}: has a $ that begins no name; write $$ for a dollar sign"
                )
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
        text = "" if self.text is None else self.text % values
        if not self.html:
            return Rendered(self.subject % values, text, "")
        # fast path: `%` reads each character of 4 KB, 2 us; held to the full path by tests/compose/test_templates.py

        # References in place of what is not ASCII spare an HTML of ASCII its encoding.
        as_it_is = not self.html.isascii()
        escaped = {
            name: shown
            if (shown := escape(values[name])).isascii() or as_it_is
            else shown.encode("ascii", "xmlcharrefreplace").decode()
            for name in self.escaped
        }
        pieces = list(self._pieces)
        pieces[1::2] = [escaped[name] for name in pieces[1::2]]
        html = "".join(pieces)
        return Rendered(self.subject % values, text, html)


def _cut(form: str) -> tuple[str, ...]:
    """Cut a format for `%` at its values: a text, the name of a value, a text, and so on."""
    pieces, text, end = list[str](), "", 0
    for match in _FIELD.finditer(form):
        text, end = text + form[end : match.start()], match.end()
        if match["name"] is None:
            text += "%"
        else:
            pieces += (text, match["name"])
            text = ""
    return (*pieces, text + form[end:])


def _line_at_fault(template: Template) -> int:
    """The number of the first line with a $ that begins no name."""
    for number, line in enumerate(template.template.splitlines(), 1):
        if not Template(line).is_valid():
            return number
    return 1


def _compiled(text: str) -> str:
    """Translate a valid template into a format for `%`."""
    # fast path: `%` in place of string.Template, 2 us a part; held to the full path by tests/compose/test_templates.py

    def form(match: re.Match[str]) -> str:
        """Return a placeholder, or an escaped dollar sign, as `%` has it."""
        name = match["named"] or match["braced"]
        return f"%({name})s" if name else "$"

    return Template.pattern.sub(form, text.replace("%", "%%"))
