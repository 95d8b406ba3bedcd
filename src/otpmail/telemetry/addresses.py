"""How the log shows the addresses of people: masked, as a hash, or in full (LOG_ADDRESSES)."""

import hashlib
import re
from collections.abc import Callable
from typing import Literal

AddressForm = Literal["masked", "hashed", "full"]

# Whatever stands around an at sign in the words of a relay or of an error. A quoted local part is masked from its last
# blank on. Bounded, so that no text is searched twice.
_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"'@]{1,256}+\"?@[^\s<>()\[\],;:\"'@]{1,256}+")


def masked(address: str) -> str:
    """Return the first character of the address, and its domain: `a***@example.org`. Without one, no more is shown."""
    _, at, domain = address.rpartition("@")
    return f"{address[:1]}***@{domain}" if at else f"{address[:1]}***"


def hashed(address: str) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the address in lower case.

    `printf %s ada@example.org | sha256sum | cut -c1-16` prints it too, so it hides nothing from a person who guesses.
    """
    return hashlib.sha256(address.lower().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def full(address: str) -> str:
    """Return the address unchanged."""
    return address


_FORMS: dict[AddressForm, Callable[[str], str]] = {"masked": masked, "hashed": hashed, "full": full}


class Addresses:
    """Shows addresses in the `form` of LOG_ADDRESSES, on their own and in the words of others."""

    def __init__(self, form: AddressForm = "masked") -> None:
        self.show = _FORMS[form]
        self._is_full = form == "full"

    def __repr__(self) -> str:
        return f"<Addresses {self.show.__name__}>"

    def within(self, words: str) -> str:
        """Return the words with each address in them in this form: relays quote the address that they refuse."""
        if self._is_full or "@" not in words:
            return words
        return _ADDRESS.sub(lambda found: self.show(found[0].rstrip(".")) + "." * found[0].endswith("."), words)
