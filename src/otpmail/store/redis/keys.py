"""The names of the keys. All have one hash tag, so that they are in one slot of a cluster."""

import hashlib

DIGEST = 16
"""How many octets a digest has."""


class Keys:
    """The keys of one `namespace` of a server. Scripts get every key that they touch from here."""

    def __init__(self, namespace: str) -> None:
        self._tag = f"{{{namespace}}}:".encode()
        self.epoch = self.named("epoch")
        self.owners = self.named("owners")
        self.used = self.named("used")
        """The channel on which used challenges are announced."""
        self.nobody = self.named("c:")
        """The record of an address that has none."""
        self.settled = self.named("settled")
        """Settled mails without a request id that finds them, by their ends."""
        self.answered = self.named("answered")
        """Settled mails that a repeated request id finds, by their ends."""

        self.contents = self.named("contents")
        """The contents of settled mails: their ids and octets, by when they are forgotten."""
        self.content_octets = self.named("content-octets")
        """How many octets these have together."""

    def __repr__(self) -> str:
        return f"<Keys {self._tag.decode()}>"

    def named(self, name: str) -> bytes:
        """Return a key of its own."""
        return self._tag + name.encode()

    def code(self, record_key: bytes) -> bytes:
        """Return the key of the record of an address's codes."""
        return self.named(f"c:{record_key.hex()}")

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

    def caller(self, caller: str) -> bytes:
        """Return a digest by which the server knows whose mail a claim is for."""
        return _digest(caller)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST).digest()
