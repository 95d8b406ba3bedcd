"""The states of open mails, which their owners announce to the replicas that watch them."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgpack

from otpmail.errors import StoreError, Unavailable
from otpmail.model import Mail
from otpmail.store.redis.books import Books
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.subscription import Subscription

KEPT_SECONDS = 15.0
"""For how long a mail is announced to a replica that has asked for it. It asks again before that ends."""

_MOST = 1000  # mails of ours that are announced at once; further ones are looked at


class Announcements:
    """Asks the owners of mails for their states, and answers other replicas about ours.

    A question or an answer is lost where the server is down. So a watcher looks at the record too, and asks again.
    Its whole state: the queues of those who watch a mail here, and the mails of ours that are announced.
    """

    def __init__(self, replica: Replica, books: Books) -> None:
        self._client = replica.client
        self._questions = replica.keys.watch
        self._answers = replica.keys.named("states:")
        self._channel = self._answers + secrets.token_hex(8).encode()
        self._records = replica.records
        self._books = books
        self._watching: dict[str, set[asyncio.Queue[Mail]]] = {}
        self._announced: dict[str, _Announced] = {}

    def __repr__(self) -> str:
        return f"<Announcements of {len(self._watching)} mails of others, {len(self._announced)} of ours>"

    def subscribe(self, subscription: Subscription) -> None:
        """Receive the questions of other replicas, and the answers to ours."""
        subscription.add(self._questions, self._asked)
        subscription.add(self._channel, self._answered)

    async def close(self) -> None:
        """Announce nothing more."""
        tasks = [one.task for one in self._announced.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Mails of others.

    @contextmanager
    def watching(self, mail_id: str) -> Iterator["asyncio.Queue[Mail]"]:
        """Return a queue of the states that a mail's owner announces from now on."""
        states: asyncio.Queue[Mail] = asyncio.Queue()
        self._watching.setdefault(mail_id, set()).add(states)
        try:
            yield states
        finally:
            left = self._watching[mail_id]
            left.discard(states)
            if not left:
                del self._watching[mail_id]

    async def ask(self, mail_id: str) -> None:
        """Ask a mail's owner for its present state, and for those that follow in the next `KEPT_SECONDS`."""
        await self._publish(self._questions, msgpack.packb((mail_id, self._channel)))

    def _answered(self, message: bytes) -> None:
        mail_id, octets = msgpack.unpackb(message)
        watching = self._watching.get(mail_id)
        if watching is not None:
            with suppress(StoreError):  # its key is not ours
                mail = self._records.open_state(mail_id, octets)
                for states in watching:
                    states.put_nowait(mail)

    # Mails of ours.

    def _asked(self, message: bytes) -> None:
        mail_id, channel = msgpack.unpackb(message)
        if mail_id not in self._books.held or self._books.owner is None or not channel.startswith(self._answers):
            return
        one = self._announced.get(mail_id)
        if one is None:
            if len(self._announced) >= _MOST:
                return
            one = self._announced[mail_id] = _Announced()
            one.task = asyncio.create_task(self._announce(mail_id, one))
        one.channels[channel] = asyncio.get_running_loop().time() + KEPT_SECONDS
        one.stop = self._books.owner.watch(mail_id, one.states)

    async def _announce(self, mail_id: str, one: "_Announced") -> None:
        """Publish each state of a mail of ours, one after the other, until nobody wants it any more."""
        try:
            while (mail := await one.next()) is not None:
                octets = msgpack.packb((mail_id, self._records.seal_state(mail)))
                for channel in tuple(one.channels):
                    await self._publish(channel, octets)
                if mail.state.final:
                    return
        finally:
            one.stop()
            del self._announced[mail_id]

    async def _publish(self, channel: bytes, octets: bytes) -> None:
        with suppress(Unavailable, StoreError):  # nothing depends on it
            await self._client.command("PUBLISH", channel, octets)


class _Announced:
    """A mail of ours that other replicas watch: the `channels` that get its `states`, each until a time of the loop."""

    __slots__ = ("channels", "states", "stop", "task")

    def __init__(self) -> None:
        self.channels: dict[bytes, float] = {}
        self.states: asyncio.Queue[Mail | None] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.stop: Callable[[], None] = lambda: None

    async def next(self) -> Mail | None:
        """Return the next state; None where the mail goes on elsewhere, or nobody wants it any more."""
        while True:
            try:
                async with asyncio.timeout_at(max(self.channels.values())):
                    return await self.states.get()
            except TimeoutError:
                now = asyncio.get_running_loop().time()
                self.channels = {channel: ends for channel, ends in self.channels.items() if ends > now}
                if not self.channels:
                    return None
