"""The names of the keys. All have one hash tag, so that they are in one slot of a cluster."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from otpmail.store.digests import Digests

LAYOUT = 2
"""The layout of what is on the server. In layout 1 names of code records and fingerprints have no key of ours."""


def joined(fingerprints: Sequence[bytes]) -> bytes:
    """Return the forms of a fingerprint as scripts read them: each behind an octet with its length (`mails.lua`)."""
    return b"".join([bytes((len(one),)) + one for one in fingerprints])


_MOST_CALLERS = 1024  # of which the digests are kept

DIGEST = 16
"""How many octets a digest has."""


class Keys:
    """The keys of one `namespace` of a server. Scripts get every key that they touch from here.

    `layout` is what may be written: that of the oldest replica that is alive. Both are read. Without `digests` it is 1,
    as for a replica of an earlier version.
    """

    def __init__(self, namespace: str, digests: Digests | None = None) -> None:
        self._tag = f"{{{namespace}}}:".encode()
        self._digests = digests
        self.layout = 1 if digests is None else LAYOUT
        self.caller = lru_cache(_MOST_CALLERS)(_digest)
        """Returns the digest of a caller's name that tells the server whose a mail or a claim is."""
        self.epoch = self.named("epoch")
        self.owners = self.named("owners")
        self.clock = self.named("clock")
        """The key of how much the clock of codes is ahead of the server's (`clock_look.lua`)."""
        self.written_layout = self.named("layout")
        """The latest layout that was written."""
        self.used = self.named("used")
        """The channel on which used challenges are announced."""
        self.wait = self.named("wait")
        """What a connection writes before it waits for replicas."""
        self.watch = self.named("watch")
        """The channel on which replicas ask for the states of mails that others own."""
        self.forgotten = self.named("forgotten")
        """The channel on which replicas tell each other whom to forget."""
        self.forgetting = self.named("forgetting")
        """Persons without whom mails settle: since when and until when, by digests with a key."""
        self.nobody = self.named("c:")
        """The record of an address that has none."""
        self.settled = self.named("settled")
        """Settled mails without a request id that finds them, by their ends."""
        self.answered = self.named("answered")
        """Settled mails that a repeated request id finds, by their ends."""
        self.remembering = self.named("remembering")
        """For how many milliseconds `settled` are remembered: each value, by when the last mail of it ends."""
        self.answering = self.named("answering")
        """For how many milliseconds `answered` are, likewise."""

        self.marks = self.named("key-marks")
        """Marks of the keys of each replica (`digests.Digests.marks`), by when it was last there."""

        self.contents = self.named("contents")
        """The contents of settled mails: their ids and octets, by when they are forgotten."""
        self.content_octets = self.named("content-octets")
        """How many octets these have together."""

    def __repr__(self) -> str:
        return f"<Keys {self._tag.decode()}>"

    def named(self, name: str) -> bytes:
        """Return a key of its own."""
        return self._tag + name.encode()

    def names_of_person(self, person: bytes) -> list[bytes]:
        """Return the names of a person who is to be forgotten, the one to write first."""
        return [person] if self._digests is None else self._digests.record_names(person)

    def codes(self, record_key: bytes) -> list[bytes]:
        """Return the keys that the record of an address's codes may have: the one to write, then the others."""
        names = [record_key] if self._digests is None else self._digests.record_names(record_key)
        return [self.named(f"c:{name.hex()}") for name in names]

    def mailbox(self, record_key: bytes) -> list[bytes]:
        """Return the keys that the record of a mailbox may have; none for an address that is its own."""
        return self.codes(record_key) if record_key else []

    def counts(self, key: bytes) -> list[bytes]:
        """Return the keys that the counts of a limit may have: the one to write, then the others."""
        names = [key] if self._digests is None else self._digests.record_names(key)
        return [self.named(f"n:{name.hex()}") for name in names]

    def undone(self, mark: bytes) -> bytes:
        """Return the key of the mark of a step that takes something back."""
        return self.named(f"u:{mark.hex()}")

    def earlier_codes(self, record_key: bytes) -> list[bytes]:
        """Return the keys that the record of a purpose may have that an earlier version has written."""
        names = [] if self._digests is None else self._digests.record_names(record_key)
        return [self.named(f"c:{name.hex()}") for name in (*names, record_key)]

    def fingerprints(self, fingerprint: bytes) -> list[bytes]:
        """Return the forms that a request's fingerprint may have: the one to write, then the others."""
        if self._digests is None:
            return [fingerprint]
        keyed = self._digests.fingerprints(fingerprint)
        if fingerprint in keyed:
            return keyed
        return [*keyed, fingerprint] if self.layout > 1 else [fingerprint, *keyed]

    def mail(self, mail_id: str) -> bytes:
        """Return the key of a mail's record."""
        return self.named(f"m:{mail_id}")

    def own(self, owner: str) -> bytes:
        """Return the key of the set of mails that an owner has."""
        return self.named(f"own:{owner}")

    def cancels(self, owner: str) -> bytes:
        """Return the key of the set of mails that an owner is asked to cancel."""
        return self.named(f"cancel:{owner}")

    def request(self, caller: str, request_id: str) -> bytes:
        """Return the key of a request id: it holds a digest, so that it is short whatever callers send."""
        digest = _digest(f"{caller}\0{request_id}")
        return self.named(f"req:{digest.hex()}")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST).digest()
