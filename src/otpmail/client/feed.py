"""The mails of a stream that blocks: taken from an iterable, and again those that a broken stream left open."""

from collections import deque
from collections.abc import Iterable, Iterator
from threading import Condition, Thread

from otpmail.client.batches import MOST_TOGETHER, Batch, Mails, OpenMails, messages
from otpmail.client.mails import outgoing_request
from otpmail.client.values import OutgoingMail
from otpmail.v1 import mail_pb2

_GATHER_SECONDS = 0.02
_END_SECONDS = 0.2
"""A moment in which a thread that is ready runs, also on a busy machine."""


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

    def wait_for_next(self) -> None:
        """Wait a moment for the next mail or the end, while no mail is open.

        A stream may fail before the thread has seen that the iterable is empty. Then the failure is no error.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.open or self._ready or self._has_ended, _END_SECONDS)

    def close(self) -> None:
        """Take no more mails, and give none to a stream."""
        with self._changed:
            self._is_closed = True
            self._end_stream()

    def request_ids(self) -> list[str]:
        """Return the names of the open mails, one for each."""
        with self._changed:
            return self.open.request_ids()

    def settle(self, request_id: str, *, is_refusal: bool = False) -> bool:
        """Take note that a mail has its result; returns whether it had none."""
        with self._changed:
            return self.open.settle(request_id, is_refusal=is_refusal)

    def take_out_larger(self, most: int | None) -> list[mail_pb2.SendMailsResponse.Result]:
        """Take out the open mails that no message to the service can have; returns a result for each."""
        with self._changed:
            return self.open.take_out_larger(most)

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

    def _batches(self, stream: int, again: Mails) -> Iterator[mail_pb2.SendMailsRequest]:
        yield from messages(again)
        while (batch := self._next_batch(stream)).mails:
            yield batch.message()

    def _next_batch(self, stream: int) -> Batch:
        """Return the mails that are ready, at least one; none at the end. They are open from now on."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._has_ended or stream != self._stream)
            self._changed.wait_for(lambda: self._is_full or self._has_ended or stream != self._stream, _GATHER_SECONDS)
            batch = Batch()
            if stream != self._stream:
                return batch
            while self._ready and not batch.is_full:
                batch.add(self._ready.popleft())
            self.open.add(batch.mails)
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
