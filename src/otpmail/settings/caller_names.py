"""Names of a caller in CALLERS_FILE: its own, the digests of its tokens, and the names in its certificates."""

import ipaddress
import re
from hashlib import sha256

from otpmail.callers import ANONYMOUS
from otpmail.settings.problems import quoted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""The name of a caller. Stores write it beside other words, so it holds no character that separates those."""

_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")
_KIND = re.compile(r"(?:DNS|URI|IP(?: Address)?|email):", re.IGNORECASE)  # OpenSSL prints it before the name
# A subject as OpenSSL writes it by RFC 2253, and `api.certificate` too: a value is escaped, or its octets.
_CHARACTER = r"""(?:[!#-*\-.-:=?-\[\]-~]|\\[ ,+"\\<>;#]|\\[0-9A-F]{2})"""
_VALUE = rf"(?:#[0-9A-F]+|(?!#){_CHARACTER}(?:(?: |{_CHARACTER})*{_CHARACTER})?)?"
_PART = rf"([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)={_VALUE}"
_SUBJECT = re.compile(rf"{_PART}(?:[,+]{_PART})*")
_PARTS = re.compile(rf"{_PART}(?:[,+]|$)")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_EMPTY = frozenset({sha256(b"").digest(), sha256(b"\n").digest()})


def problem_of_name(name: str) -> str:
    """Return what is wrong with the name of a caller, empty for nothing."""
    if NAME.fullmatch(name) and name != ANONYMOUS.name:
        return ""
    rule = "is the name of callers without a token" if name == ANONYMOUS.name else "is no name of a caller"
    return f"{rule}; use 1 to 64 letters, digits, dots, dashes and underscores"


def san(text: str) -> str:
    """Return a name in a certificate with its kind, by its form: a URI, an address, an IP address, or one in the DNS.

    Raises ValueError.
    """
    if _KIND.match(text):
        raise ValueError(f"{quoted(text)} has its kind before it; write {quoted(text.partition(':')[2])}")
    if not text or not text.isprintable() or " " in text:
        raise ValueError(f"{quoted(text)} is no name in a certificate")
    if "://" in text or text.startswith("urn:"):
        return f"uri:{text}"
    if "@" in text:
        return f"email:{text}"
    try:
        return f"ip:{ipaddress.ip_address(text)}"
    except ValueError:
        if not _HOST.fullmatch(text):
            raise ValueError(f"{quoted(text)} is no URI, address or host name in letters of ASCII") from None
        return f"dns:{text.lower()}"


def subject(text: str) -> str:
    """Return a subject of a certificate with its kind. Raises ValueError for a text that no subject is written as."""
    if not _SUBJECT.fullmatch(text) or not all(_is_short(match[1]) for match in _PARTS.finditer(text)):
        raise ValueError(
            f"{quoted(text)} is no subject of a certificate by RFC 2253, such as CN=shop,O=Example; "
            "`openssl x509 -in FILE -noout -subject -nameopt RFC2253` prints it"
        )
    return f"subject:{text}"


def _is_short(name: str) -> bool:
    """Whether OpenSSL writes the name of a part of a subject so: `CN`, and neither `cn` nor `commonName`."""
    import ssl  # takes 10 ms, and few files have subjects

    try:
        found = ssl._ASN1Object.fromname(name)  # noqa: SLF001  the only way to OpenSSL's table of names
    except ValueError:
        return name[0].isdigit()
    return name in {found.shortname, found.oid}


def digest(text: str) -> bytes:
    """Return the SHA-256 of a token. Raises ValueError."""
    if not _DIGEST.fullmatch(text):  # it may be the token itself
        raise ValueError("is no SHA-256 in 64 hexadecimal digits, as `otpmail caller add` writes it; it is not shown")
    found = bytes.fromhex(text)
    if found in _EMPTY:
        raise ValueError("is the SHA-256 of no token, as of a variable that is not set")
    return found
