"""Code records on a Redis server: one script for each decision, which says what `otp.policy` says."""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable

import msgpack

from otpmail.errors import LimitExceeded
from otpmail.model import CALL, Challenge, Check, CheckResult, Sending
from otpmail.store.challenges import Guess, Proofs, Rules
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.resp import Value
from otpmail.store.redis.script import Script
from otpmail.store.redis.subscription import Subscription
from otpmail.store.redis.used import UsedChallenges
from otpmail.store.redis.withdrawals import Withdrawals

_SEND = Script.load("codes", "code_choice", "code_send")
_CHECK = Script.load("codes", "code_check")
_VOID = Script.load("codes", "code_void")
_UNSEND = Script.load("codes", "code_unsend")

_WITHDRAW_SECONDS = 0.5  # for which a caller waits that has had no answer: it may ask another replica next
_REFUSALS = {
    b"blocked": "too many wrong codes for this address",
    b"spaced": "a code was mailed to this address just now",
}
_RESULTS = {result.value.encode(): result for result in CheckResult}


class RedisChallengeStore:
    """Code records by key (see `store.challenges.ChallengeStore`), of which the used ones take memory here: `octets`.

    The time counts that the server tells (`clock_look.lua`), unless a test gives a `time`. Each change that a check
    makes has reached as many replicas as the client was made for. A code that was called VALID stays used for its life,
    also on a server that was set back: living processes know it.
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
        self._withdrawals = Withdrawals(self._withdraw)

    def __repr__(self) -> str:
        return f"<RedisChallengeStore {self._client!r}, {self.used!r}>"

    @property
    def octets(self) -> int:
        """The memory of this process that used codes take."""
        return self.used.octets

    async def send(self, key: bytes, now: float, fresh: Challenge, *, spaced: bool, room: bool) -> Sending:
        """Decide which challenge to mail now. Raises LimitExceeded, Unavailable."""
        del room  # the server refuses for itself when it is full
        await self.settled(key)
        names, head = self.record(key)
        arguments = [*head, *self.question(key, now, fresh, spaced=spaced)]
        try:
            try:
                packed = await self._client.run(_SEND, names, arguments)
            except AnswerLost:  # the record has the mark of the call, so the step is not taken twice
                packed = await self._client.run(_SEND, names, arguments)
        except (AnswerLost, CancelledError):
            await self.withdraw(key, fresh)
            raise
        return sending_of(packed)

    def record(self, key: bytes) -> tuple[list[bytes], list[Value]]:
        """Return the names of a record and the clock, and the first words of a script about it (`codes.lua`)."""
        names = self._keys.codes(key)
        return [*names, self._keys.clock], [self._at, len(names), self._keys.layout]

    def question(self, key: bytes, now: float, fresh: Challenge, *, spaced: bool) -> list[Value]:
        """Return what a script needs to know that decides which challenge to mail (`code_choice.lua`).

        The life of `fresh` begins when the server decides; `now` is when it would have begun here.
        """
        rules, lifespan = self._rules, fresh.expires - now
        return [
            *(rules.attempts, rules.failures_per_hour, rules.resend, int(spaced)),
            *(fresh.id, fresh.key_id, lifespan, self._proofs.proof(key, fresh)),
        ]

    async def withdraw(self, key: bytes, fresh: Challenge, unless: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Take back what a call with that `fresh` challenge may have changed, unless its mail is sent all the same.

        It goes on behind this call while the server is down.
        """
        self._withdrawals.begin(key, fresh.id[CALL], unless)
        await self._withdrawals.wait_for(key, seconds=_WITHDRAW_SECONDS)

    async def settled(self, key: bytes) -> None:
        """Wait until nothing about a record is to be taken back any more."""
        await self._withdrawals.wait_for(key)

    async def check(self, key: bytes, now: float, guess: Guess, only: bytes | None) -> Check:
        """Count an attempt, compare, and use the code up if it is right. It is asked once, whatever becomes of it."""
        del now
        rules = self._rules
        names, head = self.record(key)
        answer = msgpack.unpackb(
            await self._client.run(
                _CHECK,
                [*names, self._keys.nobody],
                [
                    *head,
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
        names, head = self.record(key)
        await self._client.run(_VOID, names, [*head, challenge_id or b""], replicated=True)

    async def unsend(self, key: bytes, sending: Sending) -> None:
        """Take a sending back."""
        await self._take_back(key, "unsend", sending.challenge.id, sending.next_send)

    async def refuse(self, key: bytes, sending: Sending) -> None:
        """Take a sending back, and end its challenge."""
        await self._take_back(key, "refuse", sending.challenge.id, sending.next_send)

    def subscribe(self, subscription: Subscription) -> None:
        """Receive which codes other replicas use."""
        subscription.add(self._keys.used, self.used.receive)

    async def close(self) -> None:
        """Finish what is to be taken back, in a second or so."""
        await self._withdrawals.close()

    def sweep(self) -> None:
        """Forget the used challenges that have expired; the server drops records by itself."""
        self.used.sweep()

    @property
    def _at(self) -> Value:
        return "" if self._time is None else self._time()

    async def _withdraw(self, key: bytes, call: bytes) -> None:
        await self._take_back(key, "withdraw", call)

    async def _take_back(self, key: bytes, *what: Value) -> None:
        names, head = self.record(key)
        await self._client.run(_UNSEND, names, [*head, *what])


def sending_of(packed: bytes) -> Sending:
    """Return the decision in a script's answer (`code_send.lua`). Raises LimitExceeded."""
    answer = msgpack.unpackb(packed, raw=True)
    if answer[0]:
        raise LimitExceeded("address", _REFUSALS[answer[0]], retry_after=float(answer[1]))
    _, challenge_id, key_id, expires, attempts, next_send = answer
    return Sending(Challenge(challenge_id, key_id.decode(), float(expires), attempts), float(next_send))
