"""The mails of a stream that go in one message, and those that were sent and have no result."""

from collections.abc import Iterable, Iterator
from itertools import count

from otpmail.client.status import too_large
from otpmail.v1 import mail_pb2

MOST_TOGETHER = 100
MOST_OCTETS = 512 << 10
"""A message that has them gets no further mail. A service takes 1 MiB more than its MAIL_MAX_BYTES in one message."""
_INVALID_ARGUMENT = 3

Mails = list[mail_pb2.SendMailRequest]


class Batch:
    """The mails of one message."""

    def __init__(self) -> None:
        self.mails: Mails = []
        self._octets = 0

    def __repr__(self) -> str:
        return f"<Batch of {len(self.mails)} mails>"

    def add(self, request: mail_pb2.SendMailRequest) -> None:
        """Add a mail."""
        self.mails.append(request)
        self._octets += request.ByteSize()

    @property
    def is_full(self) -> bool:
        """Whether the next mail goes in another message."""
        return len(self.mails) >= MOST_TOGETHER or self._octets >= MOST_OCTETS

    def message(self) -> mail_pb2.SendMailsRequest:
        """Return the message."""
        return mail_pb2.SendMailsRequest(mails=self.mails)


def messages(mails: Iterable[mail_pb2.SendMailRequest]) -> Iterator[mail_pb2.SendMailsRequest]:
    """Yield the messages for mails that are all there."""
    batch = Batch()
    for mail in mails:
        batch.add(mail)
        if batch.is_full:
            yield batch.message()
            batch = Batch()
    if batch.mails:
        yield batch.message()


class OpenMails:
    """The mails of a stream that were sent and have no result. Two may have the same request_id, and get a result each.

    The service refuses the second one, unless it is the same mail.
    """

    def __init__(self) -> None:
        self._sent: dict[int, mail_pb2.SendMailRequest] = {}
        self._by_id: dict[str, list[int]] = {}
        self._numbers = count()

    def __repr__(self) -> str:
        return f"<OpenMails {len(self)}>"

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, mails: Mails) -> None:
        """Add mails that are sent now."""
        for request, number in zip(mails, self._numbers, strict=False):
            self._sent[number] = request
            self._by_id.setdefault(request.request_id, []).append(number)

    def settle(self, request_id: str, *, is_refusal: bool = False) -> bool:
        """Take out a mail that has its result; returns whether there was one.

        Of several with one request_id, an outcome is the first one's, since the service accepts that one. A refusal is
        the last one's.
        """
        same = self._by_id.get(request_id)
        if same is None:
            return False
        del self._sent[same.pop(-1 if is_refusal else 0)]
        if not same:
            del self._by_id[request_id]
        return True

    def all(self) -> Mails:
        """Return the mails in the order in which they were sent."""
        return list(self._sent.values())

    def request_ids(self) -> list[str]:
        """Return their names, one for each mail."""
        return [request.request_id for request in self.all()]

    @property
    def largest(self) -> int:
        """How many octets the largest mail has, 0 without mails."""
        return max((mail.ByteSize() for mail in self.all()), default=0)

    def take_out_larger(self, most: int | None) -> list[mail_pb2.SendMailsResponse.Result]:
        """Take out the mails that no message to the service can have, of `most` octets; returns a result for each."""
        if most is None:
            return []
        found = [(mail, mail_pb2.SendMailsRequest(mails=[mail]).ByteSize()) for mail in self.all()]
        larger = [(mail.request_id, octets) for mail, octets in found if octets > most]
        for request_id, _ in larger:
            self.settle(request_id, is_refusal=True)
        return [
            mail_pb2.SendMailsResponse.Result(
                request_id=request_id, code=_INVALID_ARGUMENT, message=too_large(octets, most)
            )
            for request_id, octets in larger
        ]
