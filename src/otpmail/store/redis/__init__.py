"""The store in Redis or Valkey, which several replicas share."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from otpmail.errors import StoreError, Unavailable
from otpmail.store.base import Entry, Issued, StoreState
from otpmail.store.challenges import Proofs, Rules, Send
from otpmail.store.cipher import Cipher
from otpmail.store.clock import StoreClock
from otpmail.store.digests import Digests
from otpmail.store.redis.addresses import RedisAddressStore
from otpmail.store.redis.checks import FitnessWatch, check_server
from otpmail.store.redis.client import Client
from otpmail.store.redis.codes import RedisChallengeStore
from otpmail.store.redis.health import Health
from otpmail.store.redis.key_watch import KeyWatch
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.mails import RedisMailStore
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.subscription import Subscription
from otpmail.store.retention import Retention
from otpmail.store.sweeping import sweep_forever


class RedisStore:
    """The store of `STORE_URL=redis://...` (see `store.base.Store`). Its keys are in one namespace of the server.

    It encrypts with the first of `keys` and decrypts with any; `proofs` has codes compared there. `replicas` of the
    server must have each change that a check of a code makes. A test may give the `time` that counts for codes.
    """

    contents = None

    def __init__(
        self,
        client: Client,
        namespace: str,
        keys: Mapping[str, bytes],
        clock: StoreClock | None = None,
        *,
        rules: Rules,
        proofs: Proofs,
        lease_seconds: float,
        retention: Retention,
        allow_volatile: bool = False,
        is_cluster: bool = False,
        replicas: int = 0,
        time: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock or StoreClock()
        digests = Digests(keys)
        self._keys = names = Keys(namespace, digests)
        self._key_watch = KeyWatch(client, names, digests.marks)
        code_clock = StoreClock() if time is None else self._clock
        self._health = Health(client, self._clock, names, code_clock=code_clock)
        self._fitness = FitnessWatch(client, allow_volatile=allow_volatile)
        self._watching: list[asyncio.Task[None]] = []
        self._allow_volatile, self._is_cluster, self._replicas = allow_volatile, is_cluster, replicas
        self.challenges = RedisChallengeStore(code_clock, client, names, rules, proofs, time=time)
        self.mails = RedisMailStore(
            self._clock, client, names, Cipher(keys), lease_seconds=lease_seconds, retention=retention
        )
        self.addresses = RedisAddressStore(
            self._clock, client, names, keys, most=retention.addresses, most_octets=retention.address_octets
        )
        self.mails.watch_lease(self._health.note_lease)
        self._subscription = Subscription(client)
        for part in (self.challenges, self.mails, self.addresses):
            part.subscribe(self._subscription)

    def __repr__(self) -> str:
        return f"<RedisStore {self._client!r}, {self._health!r}, {self.challenges!r}, {self.mails!r}>"

    @property
    def unwritten(self) -> int:
        """How many changes wait for the server, such as settlements."""
        return self.mails.unwritten

    async def open(self) -> None:
        """Connect, check the server, and take a lease. Raises StoreError."""
        try:
            await check_server(
                self._client,
                allow_volatile=self._allow_volatile,
                is_cluster=self._is_cluster,
                replicas=self._replicas,
            )
            await self._health.begin()
            await self.addresses.load()
            await self.mails.open()
        except BaseException as error:
            await self._client.close()
            if isinstance(error, Unavailable):
                raise StoreError(f"STORE_URL: {error}") from error
            raise
        watching = self._health.run(), self._subscription.run(), self._key_watch.run()
        self._watching = [asyncio.create_task(work) for work in watching]

    def watch(self, changed: Callable[[StoreState], None]) -> None:
        """Call `changed` on the loop whenever the server no longer takes changes, and when it does again."""
        self._health.changed = changed

    async def close(self) -> None:
        """Write what was noted, and hand over what this replica owns. It takes some seconds at most."""
        await self.addresses.close()
        await self.challenges.close()
        await self.mails.close()
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._client.close()

    async def issue(self, send: Send, entry: Entry) -> Issued:
        """Decide which challenge to mail, and keep the mail of that one, in one step (see `store.base.Issue`)."""
        issued = entry.mail.issued
        assert issued is not None
        challenge = issued.challenge
        record, head = self.challenges.record(send.key, send.earlier)
        record += self.challenges.others(send)
        named = issued.next_send_time, issued.spent_until
        words = (*head, challenge.id, challenge.key_id, challenge.expires, challenge.length, *named)
        question = self.challenges.question(send)
        await self.challenges.settled(send.key)
        try:
            answer, packed = await self.mails.issue(entry, record, (*words, *question))
        except AnswerLost:
            unless = partial(self.mails.is_accepted, entry.mail.id)
            await self.challenges.withdraw(send, unless)
            raise
        return Issued(self.challenges.sending_of(packed, send) if packed else None, answer)

    async def sweep_forever(self, every: float) -> None:
        """Drop what has ended each `every` seconds until cancelled; while the server is down, the next time."""
        await sweep_forever(self._sweep, every)

    async def _sweep(self) -> None:
        self.challenges.sweep()
        await self.mails.forget_ended()
        await self.addresses.forget_ended()
        await self._fitness.look()
