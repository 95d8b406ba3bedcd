"""Reads a certificate with its private key, and those of authorities, as PEM files that may change at any time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from otpmail.errors import SettingsError
from otpmail.settings.problems import quoted
from otpmail.settings.secret_file import read_text

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_MOST_OCTETS = 1 << 20
_NO_CERTIFICATE = "holds no certificate in PEM form, or one that can't be read"
_SOON_SECONDS = 14 * 86_400.0
_SOON_PART = 0.1  # of its life, since a certificate may be for days: what renews it does so well before


class Validity(NamedTuple):
    """When a certificate becomes valid and when it expires (RFC 5280, 4.1.2.5), in seconds since the epoch."""

    begins: float
    ends: float

    def fault(self, now: float, renewal: str, refusal: str) -> str:
        """Return why the certificate is refused, or will be soon; empty where it is not.

        Soon is the last tenth of its life, and two weeks at most.
        """
        if now < self.begins:
            return f"is not valid before {_date(self.begins)}; {refusal}"
        left = self.ends - now
        if left < 0:
            return f"expired on {_date(self.ends)}; {refusal}{renewal}"
        if left < min(_SOON_SECONDS, _SOON_PART * (self.ends - self.begins)):
            return f"expires on {_date(self.ends)}; renew it before"
        return ""


_ALWAYS = Validity(0.0, inf)


class Doubt(NamedTuple):
    """A line about a certificate that is refused, or will be soon, with the setting and the dates."""

    setting: str
    line: str
    validity: Validity


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The contents of TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE: a pair that fits, and good authorities."""

    chain: bytes = field(repr=False)  # the key may be in the same file
    key: bytes = field(repr=False)
    authorities: bytes | None = field(default=None, repr=False)
    validity: Validity = _ALWAYS
    authority_validities: tuple[tuple[str, Validity], ...] = ()
    """Each authority by its subject."""

    @classmethod
    def read(cls, cert_file: Path, key_file: Path | None, ca_file: Path | None) -> Self:
        """Read and check the files; without `key_file` the key is in `cert_file`.

        Raises SettingsError with one line, which names the setting.
        """
        chain = _read("TLS_CERT_FILE", cert_file)
        key = chain if key_file is None else _read("TLS_KEY_FILE", key_file)
        authorities = None if ca_file is None else _read("TLS_CLIENT_CA_FILE", ca_file)
        own = _check_pair(chain, key, "TLS_CERT_FILE", "TLS_CERT_FILE" if key_file is None else "TLS_KEY_FILE")
        validities: list[tuple[str, Validity]] = []
        if authorities is not None:
            found = _certificates(authorities, "TLS_CLIENT_CA_FILE")
            validities = [(each.subject.rfc4514_string(), _validity(each)) for each in found]
        return cls(chain, key, authorities, _validity(own), tuple(validities))

    def doubts(self, now: float) -> Iterator[Doubt]:
        """Yield a line about our certificate if callers refuse it, and one if callers of an authority are refused.

        Soon counts too. Of several authorities the line names the one that expires first.
        """
        if fault := self.validity.fault(now, ", so renew it", "callers refuse it"):
            yield Doubt("TLS_CERT_FILE", f"TLS_CERT_FILE: the certificate {fault}", self.validity)
        doubtful = [
            Doubt("TLS_CLIENT_CA_FILE", f"TLS_CLIENT_CA_FILE: the authority {quoted(subject)} {fault}", validity)
            for subject, validity in self.authority_validities
            if (fault := validity.fault(now, "", "its certificates of callers are refused"))
        ]
        if doubtful:
            first = min(doubtful, key=lambda doubt: doubt.validity.ends)
            more = len(doubtful) - 1
            others = f" (and so for {more} more)" if more else ""
            yield first._replace(line=first.line + others)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _validity(certificate: "Certificate") -> Validity:
    return Validity(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _read(name: str, path: Path) -> bytes:
    try:
        return read_text(path, most_octets=_MOST_OCTETS).encode()
    except ValueError as error:
        raise SettingsError(f"{name}: {path} {error}") from None


def _certificates(octets: bytes, name: str) -> "list[Certificate]":
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(octets)
    except ValueError:
        raise SettingsError(f"{name}: {_NO_CERTIFICATE}") from None


def _check_authorities(octets: bytes, name: str) -> None:
    """Raise SettingsError if OpenSSL can't read the authorities.

    cryptography warns of serial numbers that are not positive, and announces that it will refuse them. A bundle of the
    system's authorities may have one.
    """
    from ssl import PROTOCOL_TLS_CLIENT, SSLContext, SSLError

    try:
        SSLContext(PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=octets.decode("ascii", "ignore"))
    except (SSLError, ValueError):
        raise SettingsError(f"{name}: {_NO_CERTIFICATE}") from None


def check_client_files(ca_file: Path, cert_file: Path | None, key_file: Path | None) -> None:
    """Check the files of OTPMAIL_CA_FILE, OTPMAIL_CERT_FILE and OTPMAIL_KEY_FILE. Raises SettingsError with one line.

    gRPC would say of a wrong one that nobody answers.
    """
    ca, cert, key_name = "OTPMAIL_CA_FILE", "OTPMAIL_CERT_FILE", "OTPMAIL_KEY_FILE"
    _check_authorities(_read(ca, ca_file), ca)
    if cert_file is not None:
        chain = _read(cert, cert_file)
        key, name = (chain, cert) if key_file is None else (_read(key_name, key_file), key_name)
        _check_pair(chain, key, cert, name)


def _check_pair(chain: bytes, key: bytes, cert_name: str, key_name: str) -> "Certificate":
    """Return the certificate that the key belongs to: the first in the chain. Raises SettingsError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    first, *_ = _certificates(chain, cert_name)
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise SettingsError(f"{key_name}: the key is encrypted; write it to a file without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{key_name}: holds no private key in PEM form that can be used") from None
    if private.public_key() != first.public_key():
        raise SettingsError(f"{key_name}: the key is not that of the certificate in {cert_name}")
    return first
