"""Reads the reply to EHLO into extensions (RFC 5321, 4.1.1.1), in the odd forms too that relays use. No I/O."""

import re

from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.redaction import clean, cut

# Relays from before RFC 4954 announce AUTH=PLAIN. Exchange announces it beside AUTH PLAIN.
_AUTH = re.compile(r"AUTH(?:[\s=]+(.*))?", re.IGNORECASE | re.DOTALL)
_BETWEEN_MECHANISMS = re.compile(r"[\s,=]+")


def read_capabilities(text: str) -> Capabilities:
    """Return what the reply to EHLO announces, its first line apart, in clean words.

    `text` is the reply without its codes, with line feeds between its lines. Any white space may follow a keyword. The
    mechanisms of all lines for AUTH count, each once, in the order of the relay.
    """
    extensions: dict[str, str] = {}
    mechanisms: dict[str, None] = {}
    for line in text.split("\n")[1:]:
        if announced := _AUTH.fullmatch(line.strip()):
            named = _BETWEEN_MECHANISMS.split((announced[1] or "").upper())
            mechanisms.update(dict.fromkeys(filter(None, named)))
            extensions["AUTH"] = cut(clean(" ".join(mechanisms)))
        elif words := line.split(maxsplit=1):
            keyword, *parameters = words
            extensions[cut(clean(keyword.upper()))] = cut(clean("".join(parameters).rstrip()))
    return Capabilities(extensions)


def mechanisms(capabilities: Capabilities) -> tuple[str, ...]:
    """Return the mechanisms of sign-in that are announced, in lower case."""
    return tuple(capabilities.extensions.get("AUTH", "").lower().split())
