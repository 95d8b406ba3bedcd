"""Media types with parameters, as in `text/calendar; method=REQUEST; charset=utf-8` (RFC 2045, 5.1)."""

import re
from functools import lru_cache
from mimetypes import MimeTypes
from types import MappingProxyType
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
_TYPES_REMEMBERED = 256

# Types that Python's own table lacks, by the last part of a file's name (IANA's registry of media types).
_MORE = {
    ".7z": "application/x-7z-compressed",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".gz": "application/gzip",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".p7s": "application/pkcs7-signature",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rtf": "application/rtf",
    ".vcf": "text/vcard",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_AS_OCTETS = (".eml", ".mht", ".mhtml", ".nws")  # a mail that is not asked to be one would have to be a good one
_BY_SUFFIX = MappingProxyType({**MimeTypes(()).types_map[True], **_MORE, **dict.fromkeys(_AS_OCTETS, DEFAULT_TYPE)})


@frozen()
class MediaType:
    """A media type: `name` in lower case, as in `text/calendar`, and parameters in their order, names in lower case."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a type with its parameters; None if the text is not a type, or has a parameter twice.

        Comments and obsolete forms are not read (RFC 2045, 5.1). A quoted value stands for what is in the quotes.
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
        return cls(name, tuple(parameters.items()))

    def get(self, attribute: str) -> str:
        """The value of a parameter; empty where it is missing."""
        return dict(self.parameters).get(attribute, "")

    def words(self) -> list[str]:
        """The type and its parameters as they are written, each without the semicolon behind it."""
        return [self.name, *[f"{attribute}={_value(value)}" for attribute, value in self.parameters]]


@lru_cache(maxsize=_TYPES_REMEMBERED)  # few types stand at most files
def media_type(text: str) -> MediaType | None:
    """Do as `MediaType.parse`."""
    return MediaType.parse(text)


def type_of(filename: str) -> str:
    """The media type by the end of a file's name; that of any octets where nothing is known of it."""
    _, dot, suffix = filename.rpartition(".")
    return _BY_SUFFIX.get(f".{suffix.lower()}", DEFAULT_TYPE) if dot else DEFAULT_TYPE


def _value(value: str) -> str:
    if _IS_WORD.fullmatch(value):
        return value
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'
