"""What a relay announces in its answer to EHLO (RFC 5321, 4.1.1.1), and what that means for a mail."""

from dataclasses import dataclass
from typing import Self

import aiosmtplib

from otpmail.model import Envelope

SHOWN = ("PIPELINING", "CHUNKING", "SMTPUTF8", "8BITMIME", "SIZE", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH")


@dataclass(frozen=True, slots=True)
class Announcement:
    """The extensions by upper-case keyword, each with its parameter text."""

    extensions: dict[str, str]

    @classmethod
    def read(cls, client: aiosmtplib.SMTP) -> Self:
        """What `client`, past its last EHLO, was told."""
        extensions = {name.upper(): parameters for name, parameters in client.esmtp_extensions.items()}
        if client.server_auth_methods:
            extensions["AUTH"] = " ".join(client.server_auth_methods).upper()
        return cls(extensions)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.extensions

    @property
    def size(self) -> int | None:
        """The largest mail in octets (RFC 1870), 0 when there is no fixed bound, None when not announced."""
        parameters = self.extensions.get("SIZE")
        if parameters is None:
            return None
        return int(parameters) if parameters.strip().isdecimal() else 0

    def cannot_take(self, envelope: Envelope) -> tuple[int, str] | None:
        """A reply code and text, as the relay itself would give them, for a mail that there is no use in offering."""
        if envelope.smtputf8 and "SMTPUTF8" not in self:
            return 550, "5.6.7 the relay does not take internationalised addresses (it does not announce SMTPUTF8)"
        if self.size and len(envelope.content) > self.size:
            return 552, f"5.3.4 the mail has {len(envelope.content)} octets, the relay takes {self.size}"
        return None
