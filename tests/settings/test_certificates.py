"""The files of TLS: a certificate with its key, authorities, and the line for what does not fit."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import DER_cert_to_PEM_cert

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509 import NameOID

from otpmail.errors import SettingsError
from otpmail.settings import ClientSettings, load_section
from otpmail.settings.certificates import CertificateFiles, Validity


class Files:
    """A certificate, its key and its authority, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.cert, self.key, self.ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self.ca.write_bytes(self.authority.cert_pem.bytes())
        self.issue()

    def issue(self, not_before: datetime | None = None, not_after: datetime | None = None) -> None:
        """Write a certificate, valid between these times."""
        issued = self.authority.issue_cert("localhost", not_before=not_before, not_after=not_after)
        self.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def read(self) -> CertificateFiles:
        """Read them."""
        return CertificateFiles.read(self.cert, self.key, self.ca)

    def problem(self) -> str:
        """Return the one line about them."""
        with pytest.raises(SettingsError) as caught:
            self.read()
        (line,) = caught.value.problems
        return line


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write files that fit together."""
    return Files(tmp_path)


def test_files_that_fit(files: Files) -> None:
    """The octets of good files are kept as they are."""
    read = files.read()
    assert (read.chain, read.key, read.authorities) == tuple(
        path.read_bytes() for path in (files.cert, files.key, files.ca)
    )


@pytest.mark.parametrize(
    ("days", "now", "doubt"),
    [
        (365, 0, ""),
        (365, 350, ""),
        (365, 352, "the certificate expires on 2031-01-01 00:00:00 UTC; renew it before"),
        (365, 366, "the certificate expired on 2031-01-01 00:00:00 UTC; callers refuse it, so renew it"),
        (365, -1, "the certificate is not valid before 2030-01-01 00:00:00 UTC; callers refuse it"),
        (6, 5.3, ""),
        (6, 5.5, "the certificate expires on 2030-01-07 00:00:00 UTC; renew it before"),
    ],
)
def test_when_a_certificate_is_good(files: Files, days: int, now: float, doubt: str) -> None:
    """Callers refuse one before and after its time, and soon in its last two weeks, or tenth if that is shorter."""
    first = datetime(2030, 1, 1, tzinfo=UTC)
    files.issue(first, first + timedelta(days=days))
    read = files.read()
    assert read.validity == Validity(first.timestamp(), (first + timedelta(days=days)).timestamp())
    doubts = read.doubts((first + timedelta(days=now)).timestamp())
    lines = [line for setting, line, _ in doubts if setting == "TLS_CERT_FILE"]
    assert lines == ([f"TLS_CERT_FILE: {doubt}"] if doubt else [])


def _authority(name: str, first: datetime, days: int) -> bytes:
    """Return the certificate of an authority that is valid for so many days."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    last = first + timedelta(days=days)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), first, last)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("day", "doubt"),
    [
        (5, ""),
        (9.5, "'CN=old' expires on 2030-01-11 00:00:00 UTC; renew it before"),
        (11, "'CN=old' expired on 2030-01-11 00:00:00 UTC; its certificates of callers are refused"),
        (
            31,
            "'CN=old' expired on 2030-01-11 00:00:00 UTC; its certificates of callers are refused (and so for 1 more)",
        ),
        (-1, "'CN=old' is not valid before 2030-01-01 00:00:00 UTC; its certificates of callers are refused "),
    ],
)
def test_when_authorities_are_good(files: Files, day: float, doubt: str) -> None:
    """Callers of an authority whose time is over are refused. Of several the one that ends first is named."""
    first = datetime(2030, 1, 1, tzinfo=UTC)
    files.issue(first - timedelta(days=100), first + timedelta(days=3000))
    files.ca.write_bytes(_authority("new", first, 20) + _authority("old", first, 10))
    doubts = list(files.read().doubts((first + timedelta(days=day)).timestamp()))
    assert [setting for setting, *_ in doubts] == (["TLS_CLIENT_CA_FILE"] if doubt else [])
    assert all(line.startswith(f"TLS_CLIENT_CA_FILE: the authority {doubt}") for _, line, _ in doubts)


def test_a_key_beside_its_certificate(files: Files) -> None:
    """Without TLS_KEY_FILE the key is in TLS_CERT_FILE."""
    both = files.key.read_bytes() + files.cert.read_bytes()
    files.cert.write_bytes(both)
    read = CertificateFiles.read(files.cert, None, None)
    assert (read.chain, read.key, read.authorities) == (both, both, None)


def test_a_key_of_another_certificate(files: Files) -> None:
    """The error about a key that does not fit the certificate is one line, without the key."""
    files.key.write_bytes(files.authority.issue_cert("localhost").private_key_pem.bytes())
    assert files.problem() == "TLS_KEY_FILE: the key is not that of the certificate in TLS_CERT_FILE"


def test_a_key_with_a_password(files: Files) -> None:
    """A key with a password is refused as one: nobody is there to type it."""
    key = ec.generate_private_key(ec.SECP256R1())
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert files.problem() == "TLS_KEY_FILE: the key is encrypted; write it to a file without a password"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cert", "TLS_CERT_FILE: holds no certificate in PEM form, or one that can't be read"),
        ("key", "TLS_KEY_FILE: holds no private key in PEM form that can be used"),
        ("ca", "TLS_CLIENT_CA_FILE: holds no certificate in PEM form, or one that can't be read"),
    ],
)
@pytest.mark.parametrize("octets", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_holds_something_else(files: Files, name: str, line: str, octets: bytes) -> None:
    """The error about a file with other content names its setting."""
    getattr(files, name).write_bytes(octets)
    assert files.problem() == line


@pytest.mark.parametrize(("name", "setting"), [("cert", "CERT"), ("key", "KEY"), ("ca", "CLIENT_CA")])
def test_a_file_that_is_not_there(files: Files, name: str, setting: str) -> None:
    """The error about a file that can't be read names its path."""
    path = getattr(files, name)
    path.unlink()
    assert files.problem() == f"TLS_{setting}_FILE: {path} does not exist"


def test_files_of_the_commands(files: Files) -> None:
    """A command names the variable of a file that TLS can't use, rather than to say that nobody answers."""

    def problem(**settings: Path) -> str:
        """Return the line about these settings."""
        with pytest.raises(SettingsError) as caught:
            load_section(ClientSettings, **{name: str(path) for name, path in settings.items()})
        (line,) = caught.value.problems
        return line

    good = {"OTPMAIL_CA_FILE": files.ca, "OTPMAIL_CERT_FILE": files.cert, "OTPMAIL_KEY_FILE": files.key}
    assert load_section(ClientSettings, **{name: str(path) for name, path in good.items()}).key_file == files.key
    none = "holds no certificate in PEM form, or one that can't be read"
    assert problem(OTPMAIL_CA_FILE=files.key) == f"OTPMAIL_CA_FILE: {none}"
    assert problem(**good | {"OTPMAIL_CERT_FILE": files.key}) == f"OTPMAIL_CERT_FILE: {none}"
    lonely = problem(OTPMAIL_CA_FILE=files.ca, OTPMAIL_CERT_FILE=files.cert)
    assert lonely == "OTPMAIL_CERT_FILE: holds no private key in PEM form that can be used"
    files.key.write_bytes(files.authority.issue_cert("localhost").private_key_pem.bytes())
    assert problem(**good) == "OTPMAIL_KEY_FILE: the key is not that of the certificate in OTPMAIL_CERT_FILE"


def test_a_bundle_of_authorities(files: Files) -> None:
    """An authority without a positive serial number, as bundles of systems have them, and words between are good."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    version = b"\xa0\x03\x02\x01\x02"
    assert version + b"\x02\x01\x01" in der  # the serial number comes behind it (RFC 5280, 4.1)
    zero = DER_cert_to_PEM_cert(der.replace(version + b"\x02\x01\x01", version + b"\x02\x01\x00"))
    files.ca.write_text(f"# Főtanúsítvány\n{files.ca.read_text()}# root\n{zero}", encoding="utf-8")
    assert load_section(ClientSettings, OTPMAIL_CA_FILE=str(files.ca)).ca_file == files.ca
    files.ca.write_text("# Főtanúsítvány\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^OTPMAIL_CA_FILE: holds no certificate in PEM form"):
        load_section(ClientSettings, OTPMAIL_CA_FILE=str(files.ca))
