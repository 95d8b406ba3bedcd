"""The names in a client's certificate, as gRPC tells them (`api.auth`)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from cryptography import x509

Properties = Mapping[str, Sequence[bytes]]


@lru_cache(maxsize=256)
def properties_of(der: bytes) -> Properties:
    """Return the subject and the other names, by gRPC's properties."""
    certificate = x509.load_der_x509_certificate(der)
    found: dict[str, list[bytes]] = {"x509_subject": [subject_of(certificate.subject)]}
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return found
    found["peer_uri"] = [name.encode() for name in names.get_values_for_type(x509.UniformResourceIdentifier)]
    found["peer_dns"] = [name.encode() for name in names.get_values_for_type(x509.DNSName)]
    found["peer_email"] = [name.encode() for name in names.get_values_for_type(x509.RFC822Name)]
    found["peer_ip"] = [str(address).encode() for address in names.get_values_for_type(x509.IPAddress)]
    return found


def subject_of(name: x509.Name) -> bytes:
    """Return a subject as OpenSSL writes it by RFC 2253."""
    return name.rfc4514_string().encode()
