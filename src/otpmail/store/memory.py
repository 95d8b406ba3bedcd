"""State in this process: a dict guarded by an asyncio.Lock, gone with the process."""

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from otpmail.errors import InvalidArgument
from otpmail.model import Challenge, Mail, Standing

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_SHARDS = 1024  # of one dict that would be too large to grow, or to sweep, without holding the loop
_REQUEST_SECONDS = 24 * 3600.0
_MOST_REQUESTS = 200_000


# A record as it is kept: octets, of which the garbage collector knows nothing, nor of a dict that holds nothing else. A
# million Standings, which it looks through, would hold the loop for long; and they take more memory.
_RECORD = struct.Struct("=ddd16shH")  # when it ends; expires, next send, id, attempts; how many failures follow
_ENDS = struct.Struct("=d")
_NO_CHALLENGE = -1  # attempts of none


class MemoryChallengeStore:
    """Standing by key. The dict is kept in shards, so that neither its growth nor a sweep holds the loop for long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self._lock = asyncio.Lock()
        self._shards: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(_SHARDS))

    def __repr__(self) -> str:
        return f"<MemoryChallengeStore {len(self)} records>"

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    async def update(self, key: bytes, rule: Callable[[Standing | None], tuple[Standing | None, T]]) -> T:
        """Replace the record by what `rule` makes of it; see ChallengeStore."""
        shard = self._shards[hash(key) % _SHARDS]
        async with self._lock:
            kept = shard.get(key)
            before = None if kept is None else _read(kept)
            after, said = rule(before)
            if after is None:
                if kept is not None:
                    del shard[key]
            elif after is not before:
                shard[key] = _written(after)
            return said

    async def sweep(self) -> int:
        """Drop the records that say nothing any more, a shard at a time, and return how many those were."""
        dropped = 0
        for shard in self._shards:
            async with self._lock:
                now = self.now()
                ended = [key for key, kept in shard.items() if _ENDS.unpack_from(kept)[0] <= now]
                for key in ended:
                    del shard[key]
            dropped += len(ended)
            await asyncio.sleep(0)  # whoever waits for the loop has it between two shards
        return dropped

    async def sweep_forever(self, every: float) -> None:
        """Sweep each `every` seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.sweep()


def _written(standing: Standing) -> bytes:
    challenge, failures = standing.challenge, standing.failures
    expires, challenge_id, attempts, key = 0.0, b"", _NO_CHALLENGE, b""
    if challenge is not None:
        challenge_id, attempts, expires = challenge.id, challenge.attempts, challenge.expires
        key = challenge.key_id.encode()
    record = _RECORD.pack(standing.expires, expires, standing.next_send, challenge_id, attempts, len(failures))
    return record + (struct.pack(f"={len(failures)}d", *failures) if failures else b"") + key


def _read(kept: bytes) -> Standing:
    _, expires, next_send, challenge_id, attempts, count = _RECORD.unpack_from(kept)
    failures = struct.unpack_from(f"={count}d", kept, _RECORD.size) if count else ()
    if attempts == _NO_CHALLENGE:
        return Standing(None, failures, next_send)
    key = kept[_RECORD.size + count * _ENDS.size :].decode()
    return Standing(Challenge(challenge_id, key, expires, attempts), failures, next_send)


class MemoryMailStore:
    """The settled mails of the last while, the oldest dropped first, and the request ids of a day."""

    def __init__(self, clock: Callable[[], float], *, remember_seconds: float, remember_count: int) -> None:
        self._clock = clock
        self._settled = _Remembered[str, Mail](clock, seconds=remember_seconds, most=remember_count)
        self._requests = _Remembered[tuple[str, str], _Request](clock, seconds=_REQUEST_SECONDS, most=_MOST_REQUESTS)

    def __repr__(self) -> str:
        return f"<MemoryMailStore {len(self._settled)} settled, {len(self._requests)} request ids>"

    async def find(self, caller: str, request_id: str, fingerprint: bytes) -> Mail | None:
        """The mail that came before with this request id; see MailStore."""
        request = self._requests.get((caller, request_id))
        if request is None:
            return None
        if request.fingerprint != fingerprint:
            raise InvalidArgument("request_id", "was used before for another request")
        return request.mail

    async def add(self, mail: Mail, fingerprint: bytes) -> Mail | None:
        """Keep the request id of a mail that is being accepted; see MailStore."""
        if not mail.request_id:
            return None
        earlier = await self.find(mail.caller, mail.request_id, fingerprint)
        if earlier is None:
            self._requests.add((mail.caller, mail.request_id), _Request(fingerprint, mail))
        return earlier

    def settle(self, mail: Mail) -> None:
        """Remember how the mail ended; see MailStore."""
        self._settled.add(mail.id, mail)
        request = self._requests.get((mail.caller, mail.request_id)) if mail.request_id else None
        if request is not None:
            request.mail = mail

    def forget_request(self, mail: Mail) -> None:
        """The mail's request id may come again; see MailStore."""
        self._requests.drop((mail.caller, mail.request_id))

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """The settled mail, if it is that caller's and still remembered."""
        mail = self._settled.get(mail_id)
        return mail if mail is not None and mail.caller == caller else None


@dataclass(slots=True)
class _Request:
    fingerprint: bytes
    mail: Mail


class _Remembered(Generic[K, V]):
    """A dict whose entries live equally long, so that the oldest is always the first to go; bounded in number."""

    def __init__(self, clock: Callable[[], float], *, seconds: float, most: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, key: K, value: V) -> None:
        now = self._clock()
        self._kept[key] = (now + self._seconds, value)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most or next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)

    def drop(self, key: K) -> None:
        self._kept.pop(key, None)

    def get(self, key: K) -> V | None:
        expires, value = self._kept.get(key, (0.0, None))
        return value if expires > self._clock() else None
