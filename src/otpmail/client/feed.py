"""The mails of a stream that blocks: in batches from an iterable, and again those that a broken stream left open."""

from collections.abc import Iterable, Iterator
from threading import Lock
from time import monotonic

from otpmail.client.mails import mail_request
from otpmail.client.values import OutgoingMail
from otpmail.v1 import mail_pb2

MOST_TOGETHER = 100
_GATHER_SECONDS = 0.02

Batch = list[mail_pb2.SendMailRequest]


class Feed:
    """Feeds one stream after another, in the thread of gRPC that sends. `open` has what was sent and has no result."""

    def __init__(self, mails: Iterable[OutgoingMail]) -> None:
        self._mails = iter(mails)
        self._taking = Lock()  # one thread takes from the iterable, which may block
        self._state = Lock()
        self._stream = 0
        self._returned: Batch = []
        self.open: dict[str, mail_pb2.SendMailRequest] = {}
        self.error: Exception | None = None
        """The error that the iterable has raised; no mail comes after it."""
        self._has_ended = False  # the iterable
        self._all_taken = False  # by a stream: each mail has been in `open`

    def __repr__(self) -> str:
        return f"<Feed {len(self.open)} open>"

    def begin(self) -> Iterator[mail_pb2.SendMailsRequest]:
        """Return the batches for a new stream. The one before gets no more."""
        with self._state:
            self._stream += 1
            again = list(self.open.values())
            return self._batches(self._stream, again)

    def settle(self, request_id: str) -> bool:
        """Take note that a mail has its result; returns whether that is its first one."""
        with self._state:
            return self.open.pop(request_id, None) is not None

    @property
    def all_taken(self) -> bool:
        """Whether the iterable has ended, and each of its mails was sent, or is about to be."""
        return self._all_taken

    @property
    def is_done(self) -> bool:
        """Whether the iterable has ended, and each of its mails has its result."""
        with self._state:
            return self._all_taken and not self.open

    def _batches(self, stream: int, again: Batch) -> Iterator[mail_pb2.SendMailsRequest]:
        for start in range(0, len(again), MOST_TOGETHER):
            yield mail_pb2.SendMailsRequest(mails=again[start : start + MOST_TOGETHER])
        while True:
            with self._taking:
                if stream != self._stream:
                    return
                batch = self._take()
                with self._state:
                    if stream != self._stream:  # it has ended while the iterable was asked
                        self._returned = batch
                        return
                    self.open.update((request.request_id, request) for request in batch)
                    self._all_taken = self._has_ended
            if not batch:
                return
            yield mail_pb2.SendMailsRequest(mails=batch)

    def _take(self) -> Batch:
        """Return the next mails: those that come within a moment, none at the end."""
        if self._returned:
            batch, self._returned = self._returned, []
            return batch
        batch, began = [], monotonic()
        try:
            for mail in self._mails:
                batch.append(mail_request(mail))
                if len(batch) == MOST_TOGETHER or monotonic() - began > _GATHER_SECONDS:
                    return batch
        except Exception as error:  # noqa: BLE001  raised once the mails before it have results
            self.error = error
        self._has_ended, self._mails = True, iter(())
        return batch
