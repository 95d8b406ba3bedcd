"""The mails of a stream that blocks: taken from an iterable, and again those that a broken stream left open."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from threading import Condition, Thread

from otpmail.client.mails import outgoing_request
from otpmail.client.values import OutgoingMail
from otpmail.v1 import mail_pb2

MOST_TOGETHER = 100
_GATHER_SECONDS = 0.02

Batch = list[mail_pb2.SendMailRequest]


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

    def add(self, batch: Batch) -> None:
        """Add mails that are sent now."""
        for request, number in zip(batch, self._numbers, strict=False):
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

    def all(self) -> Batch:
        """Return the mails in the order in which they were sent."""
        return list(self._sent.values())

    def request_ids(self) -> list[str]:
        """Return their names, one for each mail."""
        return [request.request_id for request in self.all()]


class Feed:
    """Feeds one stream after another, in the thread of gRPC that sends. `open` has what was sent and has no result.

    A thread takes the mails from the iterable, which may block, and at most a batch more than is sent. So each mail is
    sent within a moment, with those that come in it, however long the next one takes.
    """

    def __init__(self, mails: Iterable[OutgoingMail]) -> None:
        self._mails = mails
        self._changed = Condition()
        self._ready: deque[mail_pb2.SendMailRequest] = deque()
        self._stream = 0
        self._has_begun = self._has_ended = self._is_closed = False
        self.open = OpenMails()
        self.error: BaseException | None = None
        """The error that the iterable has raised; no mail comes after it."""

    def __repr__(self) -> str:
        return f"<Feed {len(self.open)} open>"

    def begin(self) -> Iterator[mail_pb2.SendMailsRequest]:
        """Return the batches for a new stream. The one before gets no more."""
        with self._changed:
            self._end_stream()
            if not self._has_begun:
                self._has_begun = True
                Thread(target=self._take, name="otpmail takes mails", daemon=True).start()
            return self._batches(self._stream, self.open.all())

    def close(self) -> None:
        """Take no more mails, and give none to a stream."""
        with self._changed:
            self._is_closed = True
            self._end_stream()

    def settle(self, request_id: str, *, is_refusal: bool = False) -> bool:
        """Take note that a mail has its result; returns whether it had none."""
        with self._changed:
            return self.open.settle(request_id, is_refusal=is_refusal)

    @property
    def all_taken(self) -> bool:
        """Whether the iterable has ended, and each of its mails was sent, or is about to be."""
        return self._has_ended and not self._ready

    @property
    def is_done(self) -> bool:
        """Whether the iterable has ended, and each of its mails has its result."""
        with self._changed:
            return self.all_taken and not self.open

    @property
    def _is_full(self) -> bool:
        return len(self._ready) >= MOST_TOGETHER

    def _end_stream(self) -> None:
        self._stream += 1
        self._changed.notify_all()

    def _batches(self, stream: int, again: Batch) -> Iterator[mail_pb2.SendMailsRequest]:
        for start in range(0, len(again), MOST_TOGETHER):
            yield mail_pb2.SendMailsRequest(mails=again[start : start + MOST_TOGETHER])
        while batch := self._next_batch(stream):
            yield mail_pb2.SendMailsRequest(mails=batch)

    def _next_batch(self, stream: int) -> Batch:
        """Return the mails that are ready, at least one; none at the end. They are open from now on."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._has_ended or stream != self._stream)
            self._changed.wait_for(lambda: self._is_full or self._has_ended or stream != self._stream, _GATHER_SECONDS)
            if stream != self._stream:
                return []
            batch = [self._ready.popleft() for _ in range(min(MOST_TOGETHER, len(self._ready)))]
            self.open.add(batch)
            self._changed.notify_all()
            return batch

    def _take(self) -> None:
        """Take the mails from the iterable, in a thread."""
        try:
            for mail in self._mails:
                request = outgoing_request(mail)
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_full or self._is_closed)
                    if self._is_closed:
                        return
                    self._ready.append(request)
                    if len(self._ready) == 1 or self._is_full:
                        self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread, once mails before it have results
            self.error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
