"""Reads the values of permissions in CALLERS_FILE: the names of methods, addresses and priorities."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from otpmail.errors import InvalidArgument
from otpmail.model import Priority
from otpmail.settings.mail import sender_key
from otpmail.settings.problems import quoted

_PRIORITIES: Mapping[str, Priority] = {priority.name.lower(): priority for priority in Priority}


def methods_of(text: str, *, among: Collection[str]) -> Collection[str]:
    """Return the paths that a name stands for: `SendCode`, `otpmail.v1.OtpService`, or a service and its method.

    Raises ValueError for a name that is not `among` the paths.
    """
    service, _, method = text.rpartition("/")
    if service:
        found = [path for path in among if path == f"/{service}/{method}"]
    else:
        found = [path for path in among if text in path[1:].split("/")]
    if not found:
        names = {name for path in among for name in (path[1:], *path[1:].split("/"))}
        raise ValueError(f"{quoted(text)} is no method or service{meant(text, names)}")
    return found


def sender_of(text: str) -> str:
    """Return the key of an address, or of `@` with a domain. Raises ValueError."""
    try:
        return sender_key(text)
    except InvalidArgument:
        raise ValueError(f"{quoted(text)} is neither an address nor an @ with a domain") from None


def priority_of(text: str) -> Priority:
    """Return the priority of a name, in any case of letters. Raises ValueError."""
    if text.lower() not in _PRIORITIES:
        raise ValueError(f"{quoted(text)} is no priority; there are {', '.join(_PRIORITIES)}")
    return _PRIORITIES[text.lower()]


def meant(text: str, known: Collection[str]) -> str:
    """Return words about the name that was probably meant, empty without one."""
    nearest = get_close_matches(text, sorted(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
