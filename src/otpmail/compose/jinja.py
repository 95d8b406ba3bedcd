"""Templates of Jinja2: sandboxed, escaped in HTML, strict, and compiled once.

A template is rendered when it is read, with marks in place of the values that differ from mail to mail. If it only
prints these, what comes out is a format that each mail fills (`compose.varying`). Otherwise each mail renders the
template.
"""

import traceback
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from html import escape
from typing import Any, NamedTuple, cast

from jinja2 import (
    FunctionLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
    UndefinedError,
    meta,
    nodes,
    pass_eval_context,
)
from jinja2.nodes import EvalContext
from markupsafe import Markup

from otpmail.compose.sandbox import Sandbox
from otpmail.compose.varying import SPACES, VARYING, Space, has_marks, is_plain

SUFFIX = ".j2"

FIXED = (
    *("product_name", "product_url", "product_logo_url", "product_color", "product_text_color", "has_color"),
    *("support_address", "support_link", "support_before", "support_after"),
    *("kind", "lang", "dir", "shows_reference"),
)
"""The names of values that a template's mails share."""

_TOO_DEEP = "is nested too deeply, or uses itself"


class RenderError(ValueError):
    """A template failed at a place, its file and line. `missing` says which value it lacks, if that is why."""

    def __init__(self, place: str, missing: str, words: str) -> None:
        super().__init__(f"{place}: {words}")
        self.place, self.missing = place, missing


class _Source(NamedTuple):
    """A parsed template, with the names that it needs and sets and the templates that it uses, by line."""

    tree: nodes.Template
    needs: frozenset[str]
    sets: frozenset[str]
    uses: tuple[tuple[int, str], ...]
    is_plain: bool


class Engine:
    """Compiles templates by their names, which are paths in messages too. Errors are ValueErrors with file and line."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._env = Sandbox(
            loader=FunctionLoader(self._load),
            autoescape=lambda name: bool(name) and name.endswith(f".html{SUFFIX}"),
            undefined=_Missing,
            finalize=_finalize,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # its time grows by the cube of a chain of filters
            auto_reload=False,
            cache_size=-1,
        )
        self._read_before: dict[str, _Source] = {}
        self._plain: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"<Engine of {len(self._sources)} templates>"

    def check(self, name: str) -> bool:
        """Check a template and those that it uses, once. Return whether it is plain: it only prints what varies."""
        if name not in self._plain:
            self._plain[name] = self._checked(name)
        return self._plain[name]

    def _checked(self, name: str) -> bool:
        family = {one: self._read(one) for one in self._family(name)}
        own = _KNOWN.union(*(source.sets for source in family.values()))
        for one, source in family.items():
            if unknown := sorted(source.needs - own):
                raise ValueError(self._about_unknown(one, source.tree, unknown[0]))
        return all(source.is_plain for source in family.values())

    def render(self, name: str, values: Mapping[str, object]) -> str:
        """Render a template that was checked."""
        self._env.begin()
        try:
            return self._env.get_template(name).render(values)
        except TemplateSyntaxError as error:  # in one that is chosen by a value
            raise ValueError(_about_syntax(error)) from None
        except RecursionError as error:
            raise RenderError(self._place(error, name), "", _TOO_DEEP) from error
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            MemoryError,
        ) as error:
            missing = str(error) if isinstance(error, UndefinedError) else ""
            raise RenderError(self._place(error, name), missing, _words_of(error)) from error

    def _load(self, name: str) -> tuple[str, str, None] | None:
        """Return a template with its path, which is then in tracebacks."""
        return (self._sources[name], name, None) if name in self._sources else None

    def _read(self, name: str) -> "_Source":
        """Parse and compile a template, once."""
        if name not in self._read_before:
            source = self._sources[name]
            if has_marks(source):
                raise ValueError(f"{name}: has a control character")
            try:
                tree = self._env.parse(source, name, name)
                self._env.begin()
                self._env.get_template(name)
            except TemplateSyntaxError as error:
                raise ValueError(_about_syntax(error)) from None
            except (RecursionError, SyntaxError, MemoryError):  # the last two are of Python, about its own brackets
                raise ValueError(f"{name}: {_TOO_DEEP}") from None
            sets = frozenset(found.name for found in tree.find_all(nodes.Name) if found.ctx == "store")
            needs = frozenset(meta.find_undeclared_variables(tree))
            self._read_before[name] = _Source(tree, needs, sets, tuple(_used_by(tree)), is_plain(tree))
        return self._read_before[name]

    def _family(self, name: str) -> Iterator[str]:
        """Yield a template, and all that it extends or includes."""
        waiting, seen = [name], {name}
        while waiting:
            one = waiting.pop()
            yield one
            for line, other in self._read(one).uses:
                if other not in self._sources:
                    raise ValueError(f"{one}:{line}: there is no template {other!r}")
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)

    def _about_unknown(self, name: str, tree: nodes.Template, unknown: str) -> str:
        lines = [found.lineno for found in tree.find_all(nodes.Name) if found.name == unknown]
        nearest = get_close_matches(unknown, _KNOWN, n=1)
        meant = f"did you mean {nearest[0]}?" if nearest else f"a variable of the request is variables.{unknown}"
        return f"{name}:{min(lines, default=1)}: unknown variable {unknown}; {meant}"

    def _place(self, error: BaseException, name: str) -> str:
        """The file and line of a template where an error came from."""
        found = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in self._sources]
        return f"{found[-1].filename}:{found[-1].lineno}" if found else name


def _used_by(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each template that one extends, includes or imports, where a name stands there."""
    for kind in (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport):
        for node in tree.find_all(kind):
            name = getattr(node, "template", None)
            if isinstance(name, nodes.Const) and isinstance(name.value, str):
                yield node.lineno, name.value


_KNOWN = frozenset({*VARYING, *FIXED, *SPACES})


class _Missing(StrictUndefined):
    """A name without a value in a template. It raises with our own message if it is missing from a space."""

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, Space):
            return f"there is no {self._undefined_name!r}"
        message: str = super()._undefined_message
        return message


def in_ascii(text: str) -> str:
    """Escape a text for HTML, and write what is not ASCII as references: such a mail needs no encoding."""
    escaped = escape(text)
    return escaped if escaped.isascii() else escaped.encode("ascii", "xmlcharrefreplace").decode()


@pass_eval_context
def _finalize(context: EvalContext, value: Any) -> Any:
    """Return what is printed of a value. A text that is made for that is counted, since a loop may print it often."""
    counted = cast("Sandbox", context.environment).counted
    if isinstance(value, Markup) or (isinstance(value, str) and not context.autoescape):
        return value
    text = str(counted(value))
    return counted(Markup(in_ascii(text))) if context.autoescape else counted(text)  # noqa: S704  it was escaped


def _about_syntax(error: TemplateSyntaxError) -> str:
    return f"{error.filename or error.name}:{error.lineno}: {error.message}"


def _words_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
