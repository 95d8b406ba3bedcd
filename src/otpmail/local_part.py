"""Local parts of addresses, where they are not a dot-atom: read strictly, and quoted on the wire (RFC 5321, 4.1.2).

Some providers gave out addresses such as `foo..bar@docomo.ne.jp`, which the standard lets stand only in quotes.
"""

import re
import unicodedata

_ATEXT = r"[a-zA-Z0-9_!#$%&'*+/=?^`{|}~-]"
DOT_ATOM = re.compile(rf"{_ATEXT}++(?:\.{_ATEXT}++)*+")  # RFC 5322, 3.2.3
_ODD_DOTS = re.compile(rf"\.*+{_ATEXT}(?:{_ATEXT}|\.)*+")
# Not all that RFC 5321, 4.1.2 lets stand in quotes. Relays that look into them take an @ there for the address's own,
# and a bracket for its end. A mail could go elsewhere.
_QUOTED = re.compile(r'"((?:[ !#-;=?A-\[\]-~]|\\[ -;=?A-~])++)"')
_ESCAPED = re.compile(r"\\(.)")
_ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?.*\?=")
_SPECIALS = frozenset('()<>[]:;@\\,"')  # RFC 5322, 3.2.3, but for the dot


def unquoted(local: str) -> str | None:
    """The text that a local part in quotes stands for, also where quotes are missing; None for any other local part.

    Raises ValueError for quotes that some relays would look into. It also does for an encoded word (RFC 2047), which
    some programs decode in an address too. So it does for a sign such as the wide U+FF20, of which some make an @, and
    for the blank of a URL. To them it would be another address.
    """
    if _ENCODED_WORD.search(local):
        raise ValueError("there is an encoded word before the @")
    if "%20" in local:
        raise ValueError("before the @ there is %20, the blank of a URL")
    if not local.isascii() and (special := next(filter(_hides_special, local), "")):
        raise ValueError(f"before the @ there is U+{ord(special):04X}, of which some programs make another sign")
    if local.startswith('"'):
        match = _QUOTED.fullmatch(local)
        if match is None:
            raise ValueError("the quotes before the @ may hold visible ASCII and blanks, but no @, < or >")
        return _ESCAPED.sub(r"\1", match[1])
    return local if _ODD_DOTS.fullmatch(local) and not DOT_ATOM.fullmatch(local) else None


def bare_of(local: str) -> str:
    """The text of a local part in the form on the wire, which may have quotes."""
    return _ESCAPED.sub(r"\1", local[1:-1]) if local.startswith('"') else local


def _hides_special(character: str) -> bool:
    return not (character.isascii() or _SPECIALS.isdisjoint(unicodedata.normalize("NFKC", character)))


def wire_form(bare: str) -> str:
    """A local part with as few quotes as it needs, so that one mailbox has one form (RFC 5321, 4.1.2)."""
    if DOT_ATOM.fullmatch(bare):
        return bare
    escaped = bare.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
