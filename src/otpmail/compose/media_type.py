"""Media types with parameters, as in `text/calendar; method=REQUEST` (RFC 2045, 5.1)."""

import re
from functools import lru_cache
from typing import Self

from otpmail.values import frozen

MAX_CONTENT_TYPE = 512
DEFAULT_TYPE = "application/octet-stream"  # RFC 2046, 4.5.1

_NAME = r"[A-Za-z0-9!#$&^_.+-]{1,64}"  # RFC 6838, 4.2
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"  # a token of RFC 2045, 5.1: no blanks, no `tspecials`
_TYPE = re.compile(rf"[ \t]*({_NAME})/({_NAME})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*({_WORD})[ \t]*=[ \t]*(?:({_WORD})|"((?:[\t !#-\[\]-~]|\\[ -~])*+)")[ \t]*')
_LAST_SEMICOLON = re.compile(r";[ \t]*")  # forgiven at the end, since many programs write one there
_IS_WORD = re.compile(_WORD)
_NONE_IF_EMPTY = ("charset", "name")  # as programs write them that know no value
_TYPES_REMEMBERED = 256


@frozen()
class MediaType:
    """A media type: `name` in lower case, as in `text/calendar`, and parameters in their order, names in lower case."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a type with its parameters; None if the text is not a type, or has a parameter twice.

        Comments and obsolete forms are not read (RFC 2045, 5.1). A quoted value stands for what is in the quotes. An
        empty charset or name counts as not given, since another one may be written.
        """
        match = _TYPE.match(text)
        if match is None or len(text) > MAX_CONTENT_TYPE:
            return None
        name = f"{match[1]}/{match[2]}".lower()
        parameters: dict[str, str] = {}
        end = match.end()
        while (found := _PARAMETER.match(text, end)) is not None:
            attribute = found[1].lower()
            if attribute in parameters:
                return None
            parameters[attribute] = re.sub(r"\\(.)", r"\1", found[3]) if found[2] is None else found[2]
            end = found.end()
        if end < len(text) and _LAST_SEMICOLON.fullmatch(text, end) is None:
            return None
        return cls(name, tuple([pair for pair in parameters.items() if pair[1] or pair[0] not in _NONE_IF_EMPTY]))

    def get(self, attribute: str) -> str:
        """The value of a parameter; empty where it is missing."""
        return dict(self.parameters).get(attribute, "")

    def has(self, attribute: str) -> bool:
        """Whether a parameter is given, by its own name or in the forms of RFC 2231, such as `name*` and `name*0*`."""
        return any(name.partition("*")[0] == attribute for name, _ in self.parameters)

    def words(self) -> list[str]:
        """The type and its parameters as they are written, each without the semicolon behind it."""
        return [self.name, *[f"{attribute}={_value(value)}" for attribute, value in self.parameters]]


@lru_cache(maxsize=_TYPES_REMEMBERED)  # few types stand at most files
def media_type(text: str) -> MediaType | None:
    """Do as `MediaType.parse`."""
    return MediaType.parse(text)


def _value(value: str) -> str:
    if _IS_WORD.fullmatch(value):
        return value
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'
