"""Mails as octets of the server's records, encrypted, and back."""

from collections.abc import Sequence
from dataclasses import replace

from otpmail.model import Mail, Priority, RecipientResult
from otpmail.store import codec
from otpmail.store.base import Entry, Progress
from otpmail.store.cipher import Cipher
from otpmail.values import frozen

_PRIORITY = 1 << 51  # more than the microseconds since the epoch, for the next fifty years
_MICROSECONDS = 1e6


@frozen()
class Record:
    """A mail as the server keeps it: the `mail`, and when it and its request id are forgotten.

    `owner` is empty once it has settled. `denied` names the request to cancel it that its owner could not meet.
    """

    mail: Mail
    forgotten: float
    owner: str = ""
    denied: str = ""
    request_ends: float = 0.0


class Records:
    """Encrypts and decrypts with the keys of `cipher`."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def __repr__(self) -> str:
        return f"<Records {self._cipher!r}>"

    def seal_entry(self, entry: Entry) -> bytes:
        """Return an accepted mail as octets."""
        return self._cipher.seal(codec.encode_entry(entry), "mail", entry.mail.id)

    def seal_progress(self, mail_id: str, progress: Progress) -> bytes:
        """Return a mail's progress as octets."""
        return self._cipher.seal(codec.encode_progress(progress), "progress", mail_id)

    def seal_settled(self, mail: Mail, *, forgotten: float, request_ends: float) -> bytes:
        """Return a settled mail as octets."""
        octets = codec.encode_settled(mail, forgotten=forgotten, request_ends=request_ends, fingerprint=b"")
        return self._cipher.seal(octets, "settled mail", mail.id)

    def open_entry(self, mail_id: str, octets: bytes, progress: bytes | None, *, orphaned: bool = False) -> Entry:
        """Return an accepted mail; `orphaned` is for delivery to judge (`Entry.orphaned`). Raises StoreError."""
        entry = codec.decode_entry(self._cipher.open(octets, "mail", mail_id))
        if progress is not None:
            entry = replace(entry, progress=codec.decode_progress(self._cipher.open(progress, "progress", mail_id)))
        return replace(entry, orphaned=True) if orphaned else entry

    def open_settled(self, mail_id: str, octets: bytes) -> tuple[Mail, float, float]:
        """Return a settled mail, when it and when its request id is forgotten. Raises StoreError."""
        mail, forgotten, request_ends, _ = codec.decode_settled(self._cipher.open(octets, "settled mail", mail_id))
        return mail, forgotten, request_ends

    def open_record(self, mail_id: str, fields: Sequence[bytes | None]) -> Record | None:
        """Return what `mail_read.lua` has found of a mail; None for nothing. Raises StoreError."""
        owner, octets, progress, settled, denied = fields
        if settled is not None:
            mail, forgotten, request_ends = self.open_settled(mail_id, settled)
            return Record(mail, forgotten, request_ends=request_ends)
        if octets is None or owner is None:
            return None
        entry = self.open_entry(mail_id, octets, progress)
        return Record(_present(entry), float("inf"), owner.decode(), (denied or b"").decode())


def score_of(priority: Priority, create_time: float) -> int:
    """Return a mail's place among those of its owner: by priority, then by age."""
    return int(priority) * _PRIORITY + int(create_time * _MICROSECONDS)


def _present(entry: Entry) -> Mail:
    """Return a mail of another owner as its caller sees it, with a result for each recipient."""
    known = {result.address: result for result in entry.progress.results}
    recipients = tuple([known.get(one) or RecipientResult(one) for one in entry.envelope.recipients])
    return replace(entry.mail, recipients=recipients, attempts=entry.progress.attempts)
