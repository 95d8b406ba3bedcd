"""TLS with a relay: the context for it, and the words for a failure."""

import hashlib
import ssl

from otpmail.errors import SettingsError
from otpmail.settings import RelaySettings
from otpmail.settings.secret_file import is_readable
from otpmail.settings.terms import in_terms_of

_PLAIN_TEXT = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"})
_TOO_OLD = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"})
_WANTS_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED"})

# The codes of OpenSSL for why a certificate was not verified (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED = 9, 10, 18
_UNKNOWN_ISSUERS = frozenset({2, 18, 19, 20, 21, 27})
_OTHER_NAMES = frozenset({62, 63, 64})

_NO_TLS = "does not speak TLS on this port, or not from the first byte"


def tls_context(settings: RelaySettings) -> ssl.SSLContext:
    """TLS 1.2 or later, with the relay's certificate and name verified against the system's CAs, or EMAIL_CA_FILE.

    It shows the certificate in EMAIL_CERT_FILE where the relay asks for one. Raises SettingsError when a file can't be
    used.
    """
    if settings.ca_file is not None and not is_readable(settings.ca_file):  # to open a pipe would block
        raise SettingsError("EMAIL_CA_FILE: is not a file that can be read")
    if settings.security == "plain" and settings.ca_file is None and settings.cert_file is None:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody uses it, and to read all CAs takes 20 ms
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except ssl.SSLError:
        raise SettingsError(f"EMAIL_CA_FILE: {settings.ca_file} holds no certificates in PEM form") from None
    except OSError as error:
        raise SettingsError(f"EMAIL_CA_FILE: {settings.ca_file} can't be read: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file is not None:
        _load_certificate(context, settings)
    return context


def read_identity(settings: RelaySettings) -> bytes:
    """Return a digest of EMAIL_CERT_FILE and EMAIL_KEY_FILE, from which a reload sees that they are new."""
    files = (file for file in (settings.cert_file, settings.key_file) if file is not None and is_readable(file))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).digest()


def _load_certificate(context: ssl.SSLContext, settings: RelaySettings) -> None:
    cert, key = settings.cert_file, settings.key_file
    assert cert is not None
    for name, file in (("EMAIL_CERT_FILE", cert), ("EMAIL_KEY_FILE", key)):
        if file is not None and not is_readable(file):
            raise SettingsError(f"{name}: is not a file that can be read")
    asked: list[None] = []

    def no_password() -> str:
        """Note that the key has a password, and give none."""
        asked.append(None)  # otherwise OpenSSL would ask for it at the terminal
        return ""

    try:
        context.load_cert_chain(cert, key, no_password)
    except (OSError, ValueError) as error:
        name = "EMAIL_KEY_FILE" if key is not None else "EMAIL_CERT_FILE"
        if asked:
            raise SettingsError(f"{name}: the key is encrypted; write it to a file without a password") from None
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{name}: the key is not that of the certificate in EMAIL_CERT_FILE") from None
        what = "EMAIL_CERT_FILE and EMAIL_KEY_FILE hold" if key is not None else f"{cert} holds"
        raise SettingsError(f"{name}: {what} no certificate with its private key in PEM form") from None


def explain(error: BaseException | None, settings: RelaySettings) -> str:
    """Say why TLS failed and which setting would cure it; empty where the cause is not TLS."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return _explain_certificate(error, settings)
        if isinstance(error, ssl.SSLError) and error.reason in _PLAIN_TEXT:
            return f"{_NO_TLS}; {_cure_no_tls(settings)}"
        if isinstance(error, ssl.SSLError) and error.reason in _TOO_OLD:
            return "speaks only versions of TLS that are not safe; the relay has to be updated to TLS 1.2 or later"
        if isinstance(error, ssl.SSLError) and error.reason in _WANTS_CERTIFICATE:
            cure = in_terms_of(settings, "set EMAIL_CERT_FILE and EMAIL_KEY_FILE")
            return f"wants a client certificate; {cure}"
        error = error.__cause__
    return ""


def _cure_no_tls(settings: RelaySettings) -> str:
    plain = "set EMAIL_SECURITY=starttls, or EMAIL_SECURITY=plain, which encrypts nothing"
    return in_terms_of(settings, f"{plain}; or set EMAIL_PORT to the one where it does, mostly 465")


def cure_no_starttls(settings: RelaySettings) -> str:
    """Say what to set for a relay that answers in plain text and does not take STARTTLS."""
    port = "set EMAIL_PORT to one with TLS, mostly 587 or 465"
    return in_terms_of(settings, f"{port}, or EMAIL_SECURITY=plain, which encrypts nothing")


def cure_silence(settings: RelaySettings) -> str:
    """Say what to set where a relay that is silent waits for TLS."""
    tls = in_terms_of(settings, "set EMAIL_SECURITY=tls")
    return f"if this port speaks TLS from the first byte, as 465 does, {tls}"


def _explain_certificate(error: ssl.SSLCertVerificationError, settings: RelaySettings) -> str:
    why = error.verify_message or "it can't be verified"
    code = error.verify_code
    if code in _OTHER_NAMES:
        cure = in_terms_of(settings, "set EMAIL_HOST to a name that is in it, or EMAIL_TLS_NAME to that name")
        return f"its certificate is not for {settings.server_name}; {cure}"
    if code == _EXPIRED:
        return "its certificate has expired; the relay's operator has to renew it, unless this machine's clock is wrong"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; the clock of this machine or of the relay is wrong"
    if code in _UNKNOWN_ISSUERS:
        what = "is self-signed" if code == _SELF_SIGNED else "is signed by an authority that is not trusted here"
        needed = "that certificate" if code == _SELF_SIGNED else "that authority's certificate"
        is_missing = f"EMAIL_CA_FILE does not hold {needed}"
        cure = is_missing if settings.ca_file is not None else f"set EMAIL_CA_FILE to a file with {needed}"
        return f"its certificate {what} ({why}); {in_terms_of(settings, cure)}"
    return f"its certificate can't be verified: {why}"
