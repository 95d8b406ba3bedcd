"""Lua scripts that a server runs as one step."""

from hashlib import sha1
from importlib.resources import files

from otpmail.values import frozen


@frozen()
class Script:
    """A script by its `text`, and by the digest under which a server knows it once it has run it."""

    name: str
    text: bytes
    digest: bytes

    def __repr__(self) -> str:
        return f"<Script {self.name}>"

    @classmethod
    def of(cls, name: str, text: bytes) -> "Script":
        """Make a script of its text. Redis 6.2 reads no `#!lua` line, so the text has none."""
        # The digest is the server's choice (EVALSHA), and nothing is kept secret by it.
        return cls(name, text, sha1(text, usedforsecurity=False).hexdigest().encode())

    @classmethod
    def load(cls, *names: str) -> "Script":
        """Read the files `scripts/NAME.lua` one behind the other: earlier ones define functions for the last."""
        folder = files("otpmail.store.redis") / "scripts"
        return cls.of(names[-1], b"\n".join((folder / f"{name}.lua").read_bytes() for name in names))
