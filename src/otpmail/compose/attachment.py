"""Files in a mail, and what they may be: names, media types and content ids."""

import re
from dataclasses import field

from otpmail.address import refuse_control_characters
from otpmail.compose.media_type import DEFAULT_TYPE, MAX_CONTENT_TYPE, MediaType, media_type
from otpmail.compose.suffixes import type_of
from otpmail.errors import InvalidArgument
from otpmail.values import frozen

MAX_ATTACHMENTS = 50
MAX_FILENAME = 255
EMBEDDED = "message/rfc822"
"""The type of a mail in a mail, which is never base64 (RFC 2046, 5.2.1)."""

_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=^_`{|}~.@-]{1,128}")


@frozen()
class Attachment:
    """A file in a mail.

    With `content_id` it is inline, for the HTML part to show as `cid:...`. As an `alternative` it stands beside text
    and HTML, for readers that prefer it: an invitation as `text/calendar; method=REQUEST` (RFC 2046, 5.1.4).
    """

    filename: str
    content_type: str
    content: bytes = field(repr=False)
    content_id: str = ""
    alternative: bool = False

    @property
    def media_type(self) -> MediaType:
        """The type with its parameters; without one, the type by the file's name."""
        return media_type(self.content_type or type_of(self.filename)) or MediaType(DEFAULT_TYPE)


def check_attachments(attachments: tuple[Attachment, ...]) -> None:
    """Raise InvalidArgument, which names the first field that is not good."""
    if len(attachments) > MAX_ATTACHMENTS:
        raise InvalidArgument("attachments", f"there are more than {MAX_ATTACHMENTS}")
    content_ids = set[str]()
    for place, attachment in enumerate(attachments):
        _check(attachment, f"attachments[{place}]")
        if attachment.content_id in content_ids:
            raise InvalidArgument(f"attachments[{place}].content_id", "is that of another file, and HTML can show one")
        if attachment.content_id:
            content_ids.add(attachment.content_id)


def _check(attachment: Attachment, where: str) -> None:
    if len(attachment.filename) > MAX_FILENAME:
        raise InvalidArgument(f"{where}.filename", f"is longer than {MAX_FILENAME} characters")
    refuse_control_characters(attachment.filename, f"{where}.filename")
    if attachment.content_type:
        _check_type(attachment.content_type, f"{where}.content_type")
    if attachment.content_id and not _CONTENT_ID.fullmatch(attachment.content_id):
        raise InvalidArgument(
            f"{where}.content_id", "is not a content id: letters, digits, @ and the like (RFC 2045, 7)"
        )
    if attachment.content_id and attachment.alternative:
        raise InvalidArgument(f"{where}.alternative", "is not for an inline file, which has a content_id")


def _check_type(text: str, where: str) -> None:
    if len(text) > MAX_CONTENT_TYPE:
        raise InvalidArgument(where, f"is longer than {MAX_CONTENT_TYPE} characters")
    found = media_type(text)
    if found is None:
        raise InvalidArgument(
            where, "is not a media type such as application/pdf or text/plain; charset=utf-8 (RFC 2045, 5.1)"
        )
    if found.name.startswith(("multipart/", "message/")) and found.name != EMBEDDED:
        raise InvalidArgument(where, f"is a composite type, which a file can't have; {EMBEDDED} is the only one")
