"""The mails of a stream from asyncio: taken from an iterable, and again those that a broken stream left open."""

import asyncio
from collections.abc import AsyncIterable, Iterable

from otpmail.client.batches import MOST_TOGETHER, Batch, Mails, OpenMails
from otpmail.client.mails import outgoing_request
from otpmail.client.values import OutgoingMail
from otpmail.v1 import mail_pb2

_END = None
_Request = mail_pb2.SendMailRequest


class AioFeed:
    """Feeds one stream after another. A task runs `take`, and at most a batch more is taken than is sent."""

    def __init__(self, mails: Iterable[OutgoingMail] | AsyncIterable[OutgoingMail]) -> None:
        self._mails = mails
        self._waiting: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_TOGETHER)
        """For mails that wait. The end needs none, so that it comes however the iterable ends."""
        self._open = OpenMails()
        self.all_taken = False
        self.error: BaseException | None = None
        """The error that the iterable has raised; no mail comes after it."""

    def __repr__(self) -> str:
        return f"<AioFeed {len(self._open)} open>"

    @property
    def is_done(self) -> bool:
        """Whether the iterable has ended, and each of its mails has its result."""
        return self.all_taken and not self._open

    @property
    def largest(self) -> int:
        """How many octets the largest open mail has, 0 without mails."""
        return self._open.largest

    def request_ids(self) -> list[str]:
        """Return the names of the open mails, one for each."""
        return self._open.request_ids()

    def settle(self, request_id: str, *, is_refusal: bool = False) -> bool:
        """Take note that a mail has its result; returns whether it had none."""
        return self._open.settle(request_id, is_refusal=is_refusal)

    def take_out_larger(self, most: int | None) -> list[mail_pb2.SendMailsResponse.Result]:
        """Take out the open mails that no message to the service can have; returns a result for each."""
        return self._open.take_out_larger(most)

    async def take(self) -> None:
        """Take the mails from the caller, as fast as the service takes them."""
        try:
            if isinstance(self._mails, AsyncIterable):
                async for mail in self._mails:
                    await self._put(mail)
            else:
                for mail in self._mails:
                    await self._put(mail)
        except BaseException as error:  # noqa: BLE001  raised once mails before it have results, if the caller is there
            self.error = error
        finally:
            self._waiting.put_nowait(_END)

    async def _put(self, mail: OutgoingMail) -> None:
        request = outgoing_request(mail)
        await self._room.acquire()
        self._waiting.put_nowait(request)

    def again(self) -> Mails:
        """Return the open mails, which a new stream has before others, in the order in which they were sent."""
        return self._open.all()

    async def next_batch(self) -> Batch:
        """Return the mails that are ready, at least one; none at the end. They are open from now on."""
        batch = Batch()
        while not self.all_taken and not batch.is_full and not (batch.mails and self._waiting.empty()):
            request = await self._waiting.get()
            if request is _END:
                self.all_taken = True
            else:
                self._room.release()
                batch.add(request)
                self._open.add([request])
        return batch
