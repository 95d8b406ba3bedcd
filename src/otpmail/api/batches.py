"""Reads requests of SendMails: the mails of a large one are parsed one by one, each when its turn comes."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from otpmail.api.bounds import Bounds, bounds_of_mail
from otpmail.api.decode import submission_from
from otpmail.api.parse import SMALL, no_message, parse
from otpmail.api.wire import LENGTH, MalformedError, read_fields, tag_of
from otpmail.compose.draft import Limits
from otpmail.cooperate import Cooperator
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.v1 import mail_pb2

MAX_MAILS = 10_000
"""Mails in one request."""

_SPARE = 1000  # fields of a batch that are no mails
_SEARCHED = 10_000  # fields of a faulty mail, in which its request id is looked for in 3 ms: recipients come before it
_MAILS = tag_of(mail_pb2.SendMailsRequest.MAILS_FIELD_NUMBER, LENGTH)
_REQUEST_ID = tag_of(mail_pb2.SendMailRequest.REQUEST_ID_FIELD_NUMBER, LENGTH)


class UnparsedMail:
    """One mail of a batch as octets: those of the batch between two places."""

    __slots__ = ("_batch", "_end", "_start", "field")

    def __init__(self, batch: bytes, start: int, end: int, index: int) -> None:
        self._batch = batch
        self._start = start
        self._end = end
        self.field = f"mails[{index}]"

    def check(self, bounds: Bounds) -> None:
        """Check a large mail where it is, without a copy. Raises InvalidArgument, as `parse` does."""
        try:
            bounds.check(self._batch, self._start, self._end)
        except MalformedError:
            raise no_message(mail_pb2.SendMailRequest, self.field) from None

    def parse(self, bounds: Bounds) -> mail_pb2.SendMailRequest:
        """Parse it. Raises InvalidArgument, which names the mail or the first field beyond its bounds."""
        return parse(self._batch[self._start : self._end], mail_pb2.SendMailRequest, bounds, self.field)

    @property
    def is_large(self) -> bool:
        """Whether it takes milliseconds to parse."""
        return self._end - self._start > SMALL

    @property
    def request_id(self) -> str:
        """The mail's request id, also if it can't be parsed; empty where none is among its first fields."""
        request_id = ""
        try:
            for place, (tag, start, end) in enumerate(read_fields(self._batch, self._start, self._end)):
                if place == _SEARCHED:
                    break
                if tag == _REQUEST_ID and end - start <= SMALL:
                    request_id = self._batch[start:end].decode()
        except (MalformedError, UnicodeDecodeError):
            pass
        return request_id


Decode = Callable[[Any], Awaitable[Submission]]
"""Decodes a mail of a batch. Raises InvalidArgument, which names the first field that is not good."""

Batch = tuple[Sequence[mail_pb2.SendMailRequest | UnparsedMail], Decode]
"""The mails of a batch, and what decodes each of them."""


class BatchReader:
    """Reads batches of mails within `limits`; the `cooperator` runs what takes long.

    `give_way` returns an awaitable that ends once others have had the loop.
    """

    def __init__(self, limits: Limits, cooperator: Cooperator, give_way: Callable[[], Awaitable[None]]) -> None:
        self._give_way = give_way
        self._decode = partial(submission_from, limits=limits, cooperator=cooperator)
        self._bounds = bounds_of_mail(limits)

    def read(self, octets: bytes) -> Batch:
        """Return the mails of a batch, and what decodes each of them.

        Raises InvalidArgument where it is no batch, and for more than MAX_MAILS.
        """
        if len(octets) > SMALL:
            return _cut(octets), self._parse_and_decode
        # fast path: protobuf parses a small batch as a whole, in half the time of one by one; held to the full path by
        # tests/api/test_batches.py
        try:
            mails = parse(octets, mail_pb2.SendMailsRequest).mails
        except InvalidArgument:  # one of its mails may be to blame, which then has a result of its own
            return _cut(octets), self._parse_and_decode
        if len(mails) > MAX_MAILS:
            raise _too_many()
        return mails, self._decode

    async def _parse_and_decode(self, mail: UnparsedMail) -> Submission:
        if mail.is_large:
            mail.check(self._bounds)
            await self._give_way()  # receiving it took milliseconds, and so will the next two steps
        parsed = mail.parse(self._bounds)
        if mail.is_large:
            await self._give_way()
        return await self._decode(parsed)


def _cut(octets: bytes) -> list[UnparsedMail]:
    """Find the mails of a batch."""
    mails: list[UnparsedMail] = []
    others = 0
    try:
        for tag, start, end in read_fields(octets, 0, len(octets)):
            if tag == _MAILS:
                if len(mails) == MAX_MAILS:
                    raise _too_many()
                mails.append(UnparsedMail(octets, start, end, len(mails)))
            elif (others := others + 1) > _SPARE:
                raise InvalidArgument(
                    "SendMailsRequest", f"holds more than {_SPARE} fields that this version does not know"
                )
    except MalformedError:
        raise InvalidArgument("mails", "the request is no SendMailsRequest") from None
    return mails


def _too_many() -> InvalidArgument:
    return InvalidArgument("mails", f"there are more than {MAX_MAILS} in one request")
