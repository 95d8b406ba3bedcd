"""Bounds a large request before protobuf parses it: how often a field may be in it, and how long it may be.

protobuf takes most of a second for a request of 11 MB that holds nothing but empty fields. `api.parse` decides which
requests are large.
"""

from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from otpmail.api.wire import FIXED32, FIXED64, LENGTH, VARINT, read_fields, tag_of
from otpmail.compose.attachment import MAX_ATTACHMENTS, MAX_FILENAME
from otpmail.compose.draft import MAX_REPLY_TO, MAX_SUBJECT, Limits
from otpmail.compose.fields import MAX_HEADER_VALUE, MAX_HEADERS, MAX_MESSAGE_ID
from otpmail.errors import InvalidArgument
from otpmail.header_names import MAX_HEADER_NAME
from otpmail.mail.idempotency import MAX_REQUEST_ID
from otpmail.mail.labels import MAX_LABEL_NAME, MAX_LABEL_VALUE, MAX_LABELS
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import mail_pb2
from otpmail.values import frozen

_SPARE = 1000  # unknown fields, and repetitions of fields that are not repeated, in one request
_SPARE_OCTETS = 64 << 10  # of unknown fields in one request
_SHOWN_KEY = 64
_KEY = tag_of(1, LENGTH)  # of the key of a map's entry
_TEXT = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
_WIRE_TYPES = {
    **dict.fromkeys((*_TEXT, FieldDescriptor.TYPE_MESSAGE), LENGTH),
    **dict.fromkeys((FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FLOAT), FIXED32),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE), FIXED64
    ),
}


@frozen()
class Size:
    """The most octets of a field, and how an error describes a longer one."""

    octets: int
    description: str


@frozen()
class _Field:
    """A field that is known by its tag. `most` is how often it may come, None where it is not repeated."""

    name: str
    most: int | None
    size: Size | None
    inside: "Mapping[int, _Field] | None"
    is_map: bool


class Bounds:
    """The bounds of one kind of message, with all messages in it.

    `counts` has the most items of each repeated field, and `sizes` the size of each text, both by the field's path, as
    in `attachments.filename`. Raises KeyError where one is missing, so that no new field is without.
    """

    def __init__(self, message: Descriptor, counts: Mapping[str, int], sizes: Mapping[str, Size]) -> None:
        self.message = message
        self._fields = _fields(message, "", counts, sizes)

    def check(self, octets: bytes, start: int = 0, end: int | None = None) -> None:
        """Read the message between two places field by field, to the first field that is beyond its bounds.

        Raises InvalidArgument, which names that field, and MalformedError where the octets are no message.
        """
        _Check(octets, self.message.name).check(start, len(octets) if end is None else end, self._fields, "")


def _fields(
    message: Descriptor, path: str, counts: Mapping[str, int], sizes: Mapping[str, Size]
) -> Mapping[int, _Field]:
    """The fields of a message by their tags."""
    fields = {}
    is_entry = message.GetOptions().map_entry
    for field in message.fields:
        name = f"{path}{field.name}"
        kind = field.message_type
        fields[tag_of(field.number, _WIRE_TYPES.get(field.type, VARINT))] = _Field(
            "" if is_entry else field.name,
            counts[name] if field.is_repeated else None,
            sizes[name] if field.type in _TEXT else None,
            None if kind is None else _fields(kind, f"{name}.", counts, sizes),
            is_map=kind is not None and kind.GetOptions().map_entry,
        )
    return fields


class _Check:
    """The check of one request: how many fields that need not be there may still come, and how many octets of them."""

    def __init__(self, octets: bytes, kind: str) -> None:
        self._octets = octets
        self._kind = kind
        self._spare = _SPARE
        self._spare_octets = _SPARE_OCTETS

    def check(self, start: int, end: int, fields: Mapping[int, _Field], prefix: str) -> None:
        """Check the message between two places; `prefix` stands before the names of its fields."""
        seen: dict[int, int] = {}
        for tag, begin, stop in read_fields(self._octets, start, end):
            field = fields.get(tag)
            index = seen.get(tag, 0)
            seen[tag] = index + 1
            if field is None:
                self._skip(prefix.rstrip(".") or self._kind, stop - begin)
                continue
            place = prefix + field.name
            if field.most is None:
                if index:
                    self._spend(place, f"is there more than {_SPARE} times")
            elif index >= field.most:
                raise InvalidArgument(place, f"there are more than {field.most}")
            if field.is_map:
                place = f"{place}[{self._key(begin, stop)!r}]"
            elif field.most is not None:
                place = f"{place}[{index}]"
            if field.size is not None and stop - begin > field.size.octets:
                raise InvalidArgument(place, field.size.description)
            if field.inside is not None:
                self.check(begin, stop, field.inside, place if field.is_map else f"{place}.")

    def _skip(self, where: str, octets: int) -> None:
        """Count an unknown field."""
        self._spend(where, f"holds more than {_SPARE} fields that this version does not know")
        self._spare_octets -= octets
        if self._spare_octets < 0:
            raise InvalidArgument(where, f"holds more than {_SPARE_OCTETS} octets that this version does not know")

    def _spend(self, where: str, description: str) -> None:
        self._spare -= 1
        if self._spare < 0:
            raise InvalidArgument(where, description)

    def _key(self, start: int, end: int) -> str:
        """The beginning of the key of a map's entry; encoders write it first."""
        tag, begin, stop = next(read_fields(self._octets, start, end), (0, 0, 0))
        return self._octets[begin : min(stop, begin + _SHOWN_KEY)].decode(errors="replace") if tag == _KEY else ""


def _characters(most: int, what: str = "is") -> Size:
    return Size(4 * most, f"{what} longer than {most} characters")


_MAILBOX = Size(4096, "is longer than a name and an address can be")
_TOKEN = Size(1024, "is longer than 1024 octets")  # `compose.draft` has the exact rules of these


def bounds_of_mail(limits: Limits) -> Bounds:
    """The bounds of a SendMailRequest of otpmail.v1."""
    body = _body(limits)
    sizes = {
        **dict.fromkeys(("to", "cc", "bcc", "from", "reply_to", "sender", "return_path"), _MAILBOX),
        **dict.fromkeys(("text", "html", "attachments.content"), body),
        "subject": _characters(MAX_SUBJECT),
        "headers.name": _characters(MAX_HEADER_NAME),
        "headers.value": _characters(MAX_HEADER_VALUE),
        "attachments.filename": _characters(MAX_FILENAME),
        "attachments.content_type": _TOKEN,
        "attachments.content_id": _TOKEN,
        "request_id": _characters(MAX_REQUEST_ID),
        "message_id": _characters(MAX_MESSAGE_ID),
        "labels.key": _characters(MAX_LABEL_NAME, "has a name"),
        "labels.value": _characters(MAX_LABEL_VALUE),
    }
    counts = {
        **dict.fromkeys(("to", "cc", "bcc"), limits.recipients),
        "reply_to": MAX_REPLY_TO,
        "headers": MAX_HEADERS,
        "attachments": MAX_ATTACHMENTS,
        "labels": MAX_LABELS,
    }
    return Bounds(mail_pb2.SendMailRequest.DESCRIPTOR, counts, sizes)


def bounds_of_original_mail(limits: Limits) -> Bounds:
    """The bounds of a SendEmailRequest of package `mail`."""
    sizes = {"to": _MAILBOX, "subject": _characters(MAX_SUBJECT), "body": _body(limits)}
    return Bounds(original_pb2.SendEmailRequest.DESCRIPTOR, {}, sizes)


def _body(limits: Limits) -> Size:
    return Size(limits.size, f"makes the mail larger than {limits.size} octets")
