"""Code records on a Redis server: one script for each decision, which says what `otp.policy` says."""

from collections.abc import Callable

import msgpack

from otpmail.errors import LimitExceeded
from otpmail.model import Challenge, Check, CheckResult, Sending
from otpmail.store.challenges import Guess, Proofs, Rules
from otpmail.store.redis.client import Client, Value
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.script import Script
from otpmail.store.redis.used import UsedChallenges

_SEND = Script.load("codes", "code_choice", "code_send")
_CHECK = Script.load("codes", "code_check")
_VOID = Script.load("codes", "code_void")
_UNSEND = Script.load("codes", "code_unsend")

_NO_PROOF = bytes(32)
_REFUSALS = {
    b"blocked": "too many wrong codes for this address",
    b"spaced": "a code was mailed to this address just now",
}
_RESULTS = {result.value.encode(): result for result in CheckResult}


class RedisChallengeStore:
    """Code records by key (see `store.challenges.ChallengeStore`), of which the used ones take memory here: `octets`.

    The server's own time counts, unless a test gives a `time`. Each change that a check makes has reached as many
    replicas as the client was made for. A code that was called VALID stays used for its life, also on a server that was
    set back: the processes that live on know it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        client: Client,
        keys: Keys,
        rules: Rules,
        proofs: Proofs,
        *,
        time: Callable[[], float] | None = None,
    ) -> None:
        self.now = clock
        self._client = client
        self._keys = keys
        self._rules = rules
        self._proofs = proofs
        self._time = time
        self.used = UsedChallenges(clock)

    def __repr__(self) -> str:
        return f"<RedisChallengeStore {self._client!r}, {self.used!r}>"

    @property
    def octets(self) -> int:
        """The memory of this process that used codes take."""
        return self.used.octets

    async def send(self, key: bytes, now: float, fresh: Challenge, *, spaced: bool, room: bool) -> Sending:
        """Decide which challenge to mail now. Raises LimitExceeded, Unavailable."""
        del now, room  # the server has a clock, and refuses for itself when it is full
        arguments = self.question(key, fresh, spaced=spaced)
        try:
            packed = await self._client.run(_SEND, [self._keys.code(key)], arguments)
        except AnswerLost:  # a new code is its own mark, so the step is not taken twice
            packed = await self._client.run(_SEND, [self._keys.code(key)], arguments)
        return sending_of(packed)

    def question(self, key: bytes, fresh: Challenge, *, spaced: bool) -> list[Value]:
        """Return what a script needs to know that decides which challenge to mail (`code_choice.lua`)."""
        rules = self._rules
        return [
            self._at,
            *(rules.attempts, rules.failures_per_hour, rules.resend, int(spaced)),
            *_fields(fresh, self._proofs.proof(key, fresh)),
        ]

    async def check(self, key: bytes, now: float, guess: Guess, only: bytes | None) -> Check:
        """Count an attempt, compare, and use the code up if it is right. It is asked once, whatever becomes of it."""
        del now
        rules = self._rules
        answer = msgpack.unpackb(
            await self._client.run(
                _CHECK,
                [self._keys.code(key), self._keys.nobody],
                [
                    self._at,
                    *(rules.attempts, rules.failures_per_hour, only or b"", int(guess.counts)),
                    *(self._keys.used, self.used.origin),
                    *[part for proof in guess.proofs(key) for part in proof],
                ],
                replicated=True,
            ),
            raw=True,
        )
        result = _RESULTS[answer[0]]
        if result is CheckResult.VALID and not self.used.add(answer[3], float(answer[4])):
            return Check(CheckResult.NO_LIVE_CODE)
        return Check(result, answer[1], float(answer[2]) if result is CheckResult.TOO_MANY_ATTEMPTS else None)

    async def void(self, key: bytes, challenge_id: bytes | None) -> None:
        """End the live challenge unused."""
        await self._client.run(_VOID, [self._keys.code(key)], [self._at, challenge_id or b""], replicated=True)

    async def unsend(self, key: bytes, sending: Sending) -> None:
        """Take a sending back."""
        await self._take_back(key, sending, refused=False)

    async def refuse(self, key: bytes, sending: Sending) -> None:
        """Take a sending back, and end its challenge."""
        await self._take_back(key, sending, refused=True)

    async def listen(self) -> None:
        """Hear which codes other replicas use, until cancelled."""
        await self.used.listen(self._client, self._keys.used)

    def sweep(self) -> None:
        """Forget the used challenges that have expired; the server drops records by itself."""
        self.used.sweep()

    @property
    def _at(self) -> Value:
        return "" if self._time is None else self._time()

    async def _take_back(self, key: bytes, sending: Sending, *, refused: bool) -> None:
        replaced: list[Value] = []
        if sending.replaced is not None:
            replaced = _fields(sending.replaced, self._proof_of(key, sending.replaced))
        arguments = [self._at, int(refused), sending.challenge.id, sending.next_send, *replaced]
        await self._client.run(_UNSEND, [self._keys.code(key)], arguments)

    def _proof_of(self, key: bytes, challenge: Challenge) -> bytes:
        """Return the proof of an earlier challenge; one whose key is gone can't be checked any more."""
        try:
            return self._proofs.proof(key, challenge)
        except KeyError:
            return _NO_PROOF


def sending_of(packed: bytes) -> Sending:
    """Return the decision in a script's answer (`code_send.lua`). Raises LimitExceeded."""
    answer = msgpack.unpackb(packed, raw=True)
    if answer[0]:
        raise LimitExceeded("address", _REFUSALS[answer[0]], retry_after=float(answer[1]))
    _, challenge_id, key_id, expires, attempts, next_send, *replaced = answer
    return Sending(
        _challenge(challenge_id, key_id, expires, attempts),
        float(next_send),
        _challenge(*replaced) if replaced else None,
    )


def _fields(challenge: Challenge, proof: bytes) -> list[Value]:
    return [challenge.id, challenge.key_id, challenge.expires, proof]


def _challenge(challenge_id: bytes, key_id: bytes, expires: float, attempts: int) -> Challenge:
    return Challenge(challenge_id, key_id.decode(), float(expires), attempts)
