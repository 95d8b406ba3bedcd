"""The names that vary from mail to mail in a template of Jinja2, and the marks that stand for their values.

A template that only prints what varies is plain. Rendered once with marks, it becomes a format that each mail fills.
"""

import re
from collections.abc import Iterator, Mapping

from jinja2 import nodes

from otpmail.compose.shown_code import SPELLED

VARYING = ("code", "spelled_code", "valid_for", "minutes", "reference", "email")
"""The names of values that differ from mail to mail, beside those in `variables` and `words`."""

SPACES = ("variables", "words")
"""The names that hold the variables of a request, and the phrases of the language."""

_FRAMES = frozenset({"super", "self", "caller"})
_VARY = frozenset({*VARYING, *SPACES, *_FRAMES})
_CAPTURES = (nodes.FilterBlock, nodes.AssignBlock, nodes.CallBlock, nodes.Macro)
_OPEN, _CLOSE = "\x1e", "\x1f"
_MARK = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")


class Space:
    """Values by name for `variables.shop`; one that is missing is an error where it is used."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __repr__(self) -> str:
        return f"<Space of {len(self._values)} values>"

    def __str__(self) -> str:
        raise TypeError("prints variables or words as a whole; name one, as in variables.shop")

    def __iter__(self) -> Iterator[str]:
        raise TypeError("loops over variables or words as a whole; name one, as in variables.shop")

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> str:
        return self._values[name]


class Marks(Space):
    """A mark for any name."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> str:
        return mark(name)


def mark(name: str) -> str:
    """Return what stands for a value in a template that is rendered for a format."""
    return f"{_OPEN}{SPELLED if name == 'spelled_code' else name}{_CLOSE}"


def has_marks(source: str) -> bool:
    """Whether a template holds what marks begin or end with."""
    return _OPEN in source or _CLOSE in source


def as_format(rendered: str) -> tuple[str, tuple[str, ...]]:
    """Return a text with marks as a format for `%`, and the names of the values that it needs."""
    parts = _MARK.split(rendered)
    names = parts[1::2]
    parts[::2] = [part.replace("%", "%%") for part in parts[::2]]
    parts[1::2] = [f"%({name})s" for name in names]
    return "".join(parts), tuple(dict.fromkeys(names))


def is_plain(node: nodes.Node) -> bool:
    """Whether varying values are printed unchanged, and nothing depends on them."""
    if isinstance(node, nodes.Output):
        return all(_is_printed(child) or is_plain(child) for child in node.nodes)
    if isinstance(node, _CAPTURES):
        return not any(_may_vary(node))
    if isinstance(node, nodes.Name):
        return node.ctx == "store" or node.name not in _VARY
    return all(is_plain(child) for child in node.iter_child_nodes())


def _may_vary(node: nodes.Node) -> Iterator[bool]:
    """Yield whether each part of what a template captures may vary."""
    yield from (found.name in _VARY for found in node.find_all(nodes.Name))
    for kind in (nodes.Call, nodes.Include, nodes.Block):
        yield from (True for _ in node.find_all(kind))


def _is_printed(node: nodes.Node) -> bool:
    """Whether a part of an output prints a value that varies, or the block that it replaces."""
    if isinstance(node, nodes.Name):
        return node.name in VARYING
    if isinstance(node, nodes.Getattr):
        return isinstance(node.node, nodes.Name) and node.node.name in SPACES
    if not isinstance(node, nodes.Call) or node.args or node.kwargs:
        return False
    return isinstance(node.node, nodes.Name) and node.node.name == "super"
