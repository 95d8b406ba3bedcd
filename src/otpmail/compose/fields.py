"""The header fields that a caller may write into its mail, and those of them whose values have a structure."""

import re

from otpmail.address import control_characters, refuse_control_characters
from otpmail.compose.structured import fault, is_structured
from otpmail.errors import InvalidArgument
from otpmail.header_names import MAX_HEADER_NAME, is_header_name, is_own

MAX_HEADERS = 50
MAX_HEADER_VALUE = 16_384
"""Characters of one value: References of a long thread, or JSON for a relay."""

MAX_HEADERS_LENGTH = 204_800
"""Characters of all values together."""

MAX_MESSAGE_ID = 250

NOT_IN_A_VALUE = control_characters(but="\t")
"""The characters that no header field holds."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM = rf"{_ATOM}(?:\.{_ATOM})*+"  # RFC 5322, 3.2.3
_MESSAGE_ID = re.compile(rf"{_DOT_ATOM}@(?:{_DOT_ATOM}|\[[!-Z^-~]+\])")  # RFC 5322, 3.6.4, without obsolete forms

_ONCE = frozenset({"references", "in-reply-to", "auto-submitted"})


def check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    """Raise InvalidArgument, which names the first field that a caller may not write, or not so."""
    if len(headers) > MAX_HEADERS:
        raise InvalidArgument("headers", f"there are more than {MAX_HEADERS}")
    if sum([len(value) for _, value in headers]) > MAX_HEADERS_LENGTH:
        raise InvalidArgument("headers", f"are longer than {MAX_HEADERS_LENGTH} characters together")
    for name, value in headers:
        where = f"headers[{name[:MAX_HEADER_NAME]!r}]"
        if not is_header_name(name):
            raise InvalidArgument(where, "is not a header name (RFC 5322, 3.6.8)")
        if is_own(name):
            raise InvalidArgument(where, "is written by the service itself")
        if len(value) > MAX_HEADER_VALUE:
            raise InvalidArgument(where, f"is longer than {MAX_HEADER_VALUE} characters")
        refuse_control_characters(value, where, NOT_IN_A_VALUE)
        if is_structured(name) and (description := fault(value)):
            raise InvalidArgument(where, description)
        if _comes_once(name.lower()) and sum([name.lower() == other.lower() for other, _ in headers]) > 1:
            raise InvalidArgument(where, "may come only once (RFC 5322, 3.6; RFC 2369, 3)")


def _comes_once(lowered: str) -> bool:
    return lowered in _ONCE or lowered.startswith("list-")


def bare_message_id(text: str) -> str:
    """A message id without blanks and angle brackets around it; `check_message_id` decides whether it is one."""
    bare = text.strip()
    return bare[1:-1] if bare.startswith("<") and bare.endswith(">") else bare


def check_message_id(message_id: str) -> None:
    """Raise InvalidArgument unless it is a message id without its angle brackets (RFC 5322, 3.6.4)."""
    if len(message_id) > MAX_MESSAGE_ID:
        raise InvalidArgument("message_id", f"is longer than {MAX_MESSAGE_ID} characters")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise InvalidArgument("message_id", "is not a message id such as 1234@example.org (RFC 5322, 3.6.4)")
