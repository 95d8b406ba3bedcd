"""State in this process: a dict guarded by an asyncio.Lock, gone with the process."""

import asyncio
import marshal
import struct
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TypeVar

from otpmail.errors import InvalidArgument
from otpmail.model import Challenge, CodeRecord, IssuedCode, Mail, MailState, RecipientResult

T = TypeVar("T")

_SHARDS = 1024  # of one dict that would be too large to grow, or to sweep, without holding the loop
_REQUEST_SECONDS = 24 * 3600.0
_MOST_REQUESTS = 200_000
_SLICES = 4  # each is one more place to look for a request id that has not come before
_MARSHAL_VERSION = 2  # the later ones look for objects that are the same, which takes its time


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

    async def update(self, key: bytes, rule: Callable[[CodeRecord | None], tuple[CodeRecord | None, T]]) -> T:
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


def _written(standing: CodeRecord) -> bytes:
    challenge, failures = standing.challenge, standing.failures
    expires, challenge_id, attempts, key = 0.0, b"", _NO_CHALLENGE, b""
    if challenge is not None:
        challenge_id, attempts, expires = challenge.id, challenge.attempts, challenge.expires
        key = challenge.key_id.encode()
    record = _RECORD.pack(standing.expires, expires, standing.next_send, challenge_id, attempts, len(failures))
    return record + (struct.pack(f"={len(failures)}d", *failures) if failures else b"") + key


def _read(kept: bytes) -> CodeRecord:
    _, expires, next_send, challenge_id, attempts, count = _RECORD.unpack_from(kept)
    failures = struct.unpack_from(f"={count}d", kept, _RECORD.size) if count else ()
    if attempts == _NO_CHALLENGE:
        return CodeRecord(None, failures, next_send)
    key = kept[_RECORD.size + count * _ENDS.size :].decode()
    return CodeRecord(Challenge(challenge_id, key, expires, attempts), failures, next_send)


class MemoryMailStore:
    """The settled mails of the last while, the oldest dropped first, and the request ids of a day and of open mails."""

    def __init__(self, clock: Callable[[], float], *, remember_seconds: float, remember_count: int) -> None:
        self._clock = clock
        self._remember_seconds = remember_seconds
        self._settled = _Remembered(seconds=remember_seconds, most=remember_count)
        self._requests = _Remembered(seconds=_REQUEST_SECONDS, most=_MOST_REQUESTS)
        self._open: dict[str, _Request] = {}  # of mails that have not settled

    def __repr__(self) -> str:
        return f"<MemoryMailStore {len(self)} settled, {len(self._open) + len(self._requests)} request ids>"

    def __len__(self) -> int:
        return len(self._settled)

    async def find(self, caller: str, request_id: str, fingerprint: bytes) -> Mail | None:
        """The mail that came before with this request id; see MailStore."""
        return self._find(_request_key(caller, request_id), fingerprint)

    async def add(self, mail: Mail, fingerprint: bytes) -> Mail | None:
        """Keep the request id of a mail that is being accepted; see MailStore."""
        if not mail.request_id:
            return None
        key = _request_key(mail.caller, mail.request_id)
        earlier = self._find(key, fingerprint)
        if earlier is None:
            self._open[key] = self._clock() + _REQUEST_SECONDS, fingerprint, mail
        return earlier

    def settle(self, mail: Mail) -> None:
        """Remember how the mail ended; see MailStore."""
        now = self._clock()
        key = _request_key(mail.caller, mail.request_id)
        request = self._open.pop(key, None)
        expires, fingerprint, _ = request or (now, b"", mail)
        kept = _written_mail(mail, now + self._remember_seconds, expires, fingerprint)
        self._settled.add(mail.id, kept, now)
        if request is not None:
            self._requests.add(key, kept, now)

    def forget_request(self, mail: Mail) -> None:
        """The mail's request id may come again; see MailStore."""
        key = _request_key(mail.caller, mail.request_id)
        self._open.pop(key, None)
        self._requests.drop(key)

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """The settled mail, if it is that caller's and still remembered."""
        kept = self._settled.get(mail_id)
        if kept is None:
            return None
        mail, forgotten, _, _ = _read_mail(kept)
        return mail if mail.caller == caller and forgotten > self._clock() else None

    def _find(self, key: str, fingerprint: bytes) -> Mail | None:
        request = self._open.get(key)
        if request is not None:  # it is kept while its mail is open, however long that is
            _, known, mail = request
        else:
            kept = self._requests.get(key)
            if kept is None:
                return None
            mail, _, expires, known = _read_mail(kept)
            if expires <= self._clock():
                return None
        if known != fingerprint:
            raise InvalidArgument("request_id", "was used before for another request")
        return mail


_Request = tuple[float, bytes, Mail]
"""Until when a request id is kept once its mail is settled, on the store's clock; the fingerprint; the mail."""


def _request_key(caller: str, request_id: str) -> str:
    return f"{caller}\0{request_id}"


def _written_mail(mail: Mail, forgotten: float, expires: float, fingerprint: bytes) -> bytes:
    """A settled mail as octets, which only this process reads: as with `_RECORD`, for the collector's sake.

    With it goes when it is forgotten, when its request id is, and the request's fingerprint.
    """
    issued = None
    if mail.issued is not None:
        told, code = mail.issued, mail.issued.challenge
        issued = (code.id, code.key_id, code.expires, code.attempts, told.expire_time, told.next_send_time)
    results = [(result.address, result.code, result.enhanced_code, result.reply) for result in mail.recipients]
    identity = (mail.id, mail.caller, mail.message_id, mail.create_time, mail.request_id)
    end = (mail.state.value, results, mail.attempts, mail.settle_time, issued)
    return marshal.dumps((identity, end, forgotten, expires, fingerprint), _MARSHAL_VERSION)


def _read_mail(kept: bytes) -> tuple[Mail, float, float, bytes]:
    """The mail, and what went with it."""
    identity, end, forgotten, expires, fingerprint = marshal.loads(kept)  # noqa: S302  we wrote it
    mail_id, caller, message_id, create_time, request_id = identity
    state, results, attempts, settle_time, issued = end
    mail = Mail(
        mail_id,
        caller,
        message_id,
        create_time,
        request_id,
        MailState(state),
        tuple(RecipientResult(*result) for result in results),
        attempts,
        settle_time,
        IssuedCode(Challenge(*issued[:4]), *issued[4:]) if issued is not None else None,
    )
    return mail, forgotten, expires, fingerprint


class _Remembered:
    """Octets by key, each for at least so many `seconds`, at most `most` of them: those that came first go first.

    They are kept in slices by the time they came, and a slice goes whole: a dict from which the first are taken out one
    by one would be searched from its beginning each time. So what is past its time may still be found.
    """

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._most_in_slice = max(1, most // _SLICES)
        self._slices: deque[dict[str, bytes]] = deque()
        self._begun: deque[float] = deque()  # when each slice was
        self._newest: dict[str, bytes] = {}
        self._closes = -inf  # when the newest slice takes no more

    def __len__(self) -> int:
        return sum(map(len, self._slices))

    def add(self, key: str, value: bytes, now: float) -> None:
        if now >= self._closes or len(self._newest) >= self._most_in_slice:
            self._open_slice(now)
        self._newest[key] = value

    def drop(self, key: str) -> None:
        for kept in self._slices:
            kept.pop(key, None)

    def get(self, key: str) -> bytes | None:
        for kept in reversed(self._slices):
            value = kept.get(key)
            if value is not None:
                return value
        return None

    def _open_slice(self, now: float) -> None:
        length = self._seconds / _SLICES
        while self._slices and (
            len(self) + self._most_in_slice > self._most or self._begun[0] + length + self._seconds <= now
        ):
            self._slices.popleft()
            self._begun.popleft()
        self._newest = {}
        self._slices.append(self._newest)
        self._begun.append(now)
        self._closes = now + length
