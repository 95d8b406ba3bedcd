"""Mails as octets of the server's records, encrypted, and back."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

from otpmail.model import Mail, Priority, RecipientResult
from otpmail.store import codec
from otpmail.store.base import Entry, Progress
from otpmail.store.cipher import Cipher
from otpmail.store.erasing import erased
from otpmail.store.redis.keys import DIGEST
from otpmail.values import frozen

_PRIORITY = 1 << 51  # more than the microseconds since the epoch, until May 2041
_MICROSECONDS = 1e6
_SMALL = 16 << 10  # octets of a content up to which a mail is read whole, whatever is asked for


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


class Claim(NamedTuple):
    """A mail whose caller waits for the relay, as the server keeps it: a digest of the caller, its request's key."""

    caller: bytes
    request: bytes

    def __repr__(self) -> str:
        return "<Claim>"


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

    def seal_settled(self, mail_id: str, octets: bytes) -> bytes:
        """Return a settled mail, which `codec.encode_settled` has encoded, encrypted."""
        return self._cipher.seal(octets, "settled mail", mail_id)

    def seal_head(self, entry: Entry) -> bytes:
        """Return a large mail without its content, for those who only ask how far it is; empty for others."""
        if len(entry.envelope.content) <= _SMALL:
            return b""
        return self.seal_state(present(entry))

    def seal_state(self, mail: Mail) -> bytes:
        """Return a mail's present state as octets."""
        octets = codec.encode_settled(mail, forgotten=inf, request_ends=0.0, fingerprint=b"")
        return self._cipher.seal(octets, "open mail", mail.id)

    def open_state(self, mail_id: str, octets: bytes) -> Mail:
        """Return what `seal_state` was given. Raises StoreError."""
        mail, _, _, _ = codec.decode_settled(self._cipher.open(octets, "open mail", mail_id))
        return mail

    def open_entry(self, mail_id: str, octets: bytes, progress: bytes | None, *, orphaned: bool = False) -> Entry:
        """Return an accepted mail; `orphaned` is for delivery to judge (`Entry.orphaned`). Raises StoreError."""
        entry = codec.decode_entry(self._cipher.open(octets, "mail", mail_id))
        if progress is not None:
            entry = replace(entry, progress=self.open_progress(mail_id, progress))
        return replace(entry, orphaned=True) if orphaned else entry

    def open_progress(self, mail_id: str, octets: bytes) -> Progress:
        """Return a mail's progress. Raises StoreError."""
        return codec.decode_progress(self._cipher.open(octets, "progress", mail_id))

    def open_settled(self, mail_id: str, octets: bytes) -> tuple[Mail, float, float]:
        """Return a settled mail, when it and when its request id is forgotten. Raises StoreError."""
        mail, forgotten, request_ends, _ = codec.decode_settled(self._cipher.open(octets, "settled mail", mail_id))
        return mail, forgotten, request_ends

    def erased(self, mail_id: str, octets: bytes, person: bytes) -> bytes | None:
        """Return a settled mail without a person, None where it has nothing of them. Raises StoreError."""
        left = erased(self._cipher.open(octets, "settled mail", mail_id), person)
        return None if left is None else self.seal_settled(mail_id, left.octets)

    def open_record(self, mail_id: str, fields: Sequence[bytes | None]) -> "Record | Claim | None":
        """Return what `mail_read.lua` has found of a mail; None for nothing. Raises StoreError."""
        owner, head, progress, settled, denied, claim, octets = fields
        if settled is not None:
            mail, forgotten, request_ends = self.open_settled(mail_id, settled)
            return Record(mail, forgotten, request_ends=request_ends)
        if claim is not None:
            return Claim(claim[:DIGEST], claim[DIGEST:])
        if owner is None or (octets is None and head is None):
            return None
        if head is not None:
            mail = self.open_state(mail_id, head)
        else:
            mail = present(self.open_entry(mail_id, octets or b"", None))
        if progress is not None:
            mail = as_far_as(mail, self.open_progress(mail_id, progress))
        return Record(mail, inf, owner.decode(), (denied or b"").decode())


def score_of(priority: Priority, create_time: float) -> int:
    """Return a mail's place among those of its owner: by priority, then by age."""
    return int(priority) * _PRIORITY + microseconds(create_time)


def microseconds(create_time: float) -> int:
    """Return a time as scores have it, the latest one for what is beyond."""
    return int(min(max(create_time * _MICROSECONDS, 0.0), _PRIORITY - 1))


def as_far_as(mail: Mail, progress: Progress) -> Mail:
    """Return an open mail as its caller sees it, with what has become of its recipients until now."""
    known = {result.address: result for result in progress.results}
    recipients = tuple([known.get(one.address) or RecipientResult(one.address) for one in mail.recipients])
    return replace(mail, recipients=recipients, attempts=progress.attempts)


def present(entry: Entry) -> Mail:
    """Return an open mail as its caller sees it, with a result for each recipient."""
    mail = replace(entry.mail, recipients=tuple(map(RecipientResult, entry.envelope.recipients)))
    return as_far_as(mail, entry.progress)
