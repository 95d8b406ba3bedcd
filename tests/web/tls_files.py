"""Files with which a listener of HTTP speaks TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpmail.settings.certificates import CertificateFiles

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates


def files_of(certificates: Certificates, folder: Path) -> CertificateFiles:
    """Return the files of a server on localhost."""
    issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
    file = folder / "pair.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return CertificateFiles.read(file, None, None)
