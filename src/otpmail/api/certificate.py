"""The names in a client's certificate, by the properties that gRPC has for them. Every door reads them here.

gRPC's own reading cuts names at a NUL, and writes octets that are no ASCII as if they were Latin-1. It writes IPv6
addresses in another way than CALLERS_FILE is read. Other programs read such a certificate as that of another.
"""

from __future__ import annotations  # cryptography is loaded with the first certificate

import ipaddress
import ssl
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from otpmail.errors import Unauthenticated

if TYPE_CHECKING:
    from cryptography import x509

_SPECIAL = frozenset(',+"\\<>;')
_UTF8_STRING = 0x0C  # its tag in DER

Properties = Mapping[str, Sequence[bytes]]


@lru_cache(maxsize=1024)
def properties_of_pem(pem: bytes) -> Properties:
    """Return the names in a certificate as PEM has it. Raises as `properties_of`."""
    return properties_of(ssl.PEM_cert_to_DER_cert(pem.decode()))


@lru_cache(maxsize=1024)
def properties_of(der: bytes) -> Properties:
    """Return the subject and the other names. Raises Unauthenticated where one of them can't be read.

    Without that one, the certificate would have a shorter list of names, and another caller.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of values that some standard forbids
            return _read(der)
    except Exception:  # noqa: BLE001  cryptography raises many kinds, whatever is in a certificate
        raise Unauthenticated("the names in this certificate can't be read") from None


def _read(der: bytes) -> Properties:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    found: dict[str, Sequence[bytes]] = {"x509_subject": [subject_of(certificate.subject)]}
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    found["peer_uri"] = _ascii(names.get_values_for_type(x509.UniformResourceIdentifier))
    found["peer_dns"] = _ascii(names.get_values_for_type(x509.DNSName))
    found["peer_email"] = _ascii(names.get_values_for_type(x509.RFC822Name))
    addresses = names.get_values_for_type(x509.IPAddress)
    found["peer_ip"] = [str(ipaddress.ip_address(str(address))).encode() for address in addresses]  # no network
    return found


def _ascii(names: Iterable[str]) -> Sequence[bytes]:
    return [name.encode("ascii") for name in names]


def subject_of(name: x509.Name) -> bytes:
    """Return a subject as OpenSSL writes it by RFC 2253, which gRPC shows: the last part first, all in ASCII."""
    sets = ("+".join(_part(part) for part in reversed(list(rdn))) for rdn in reversed(name.rdns))
    return ",".join(sets).encode()


def _part(part: x509.NameAttribute[str | bytes]) -> str:
    """Return a name and its value. One that OpenSSL has no name for is shown by its octets."""
    oid, value = part.oid.dotted_string, part.value
    known = _short_name(oid)
    if known is None or isinstance(value, bytes):
        octets = value if isinstance(value, bytes) else value.encode()
        return f"{known or oid}=#{bytes((_UTF8_STRING, len(octets))).hex().upper()}{octets.hex().upper()}"
    escaped = "".join(map(_escaped, value))
    if escaped.startswith(("#", " ")):
        escaped = f"\\{escaped}"
    if escaped.endswith(" ") and len(value) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return f"{known}={escaped}"


def _escaped(character: str) -> str:
    if character in _SPECIAL:
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    return "".join(f"\\{octet:02X}" for octet in character.encode())


def _short_name(oid: str) -> str | None:
    try:
        found = ssl._ASN1Object(oid)  # noqa: SLF001  the only way to OpenSSL's table of names
    except ValueError:
        return None
    return found.shortname if found.nid else None
