"""Code records on a Redis server: one script for each decision, by the rules of `otp.policy`."""

from asyncio import CancelledError, Future, shield
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from secrets import token_bytes
from typing import Any

import msgpack

from otpmail.code_record import STRANGERS, Budget, CodeRecord, Lane
from otpmail.errors import Unavailable
from otpmail.model import LONG, Challenge, Check, CheckResult, Reached, Sending
from otpmail.store.challenges import ANY, Attempt, Guess, Proofs, Quota, Rules, Send
from otpmail.store.earlier_records import READ_SECONDS
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.resp import Value
from otpmail.store.redis.script import Script
from otpmail.store.redis.subscription import Subscription
from otpmail.store.redis.used import UsedChallenges
from otpmail.store.redis.withdrawals import Unless, Withdrawals, until_answered

_SEND = Script.load("codes", "counts", "code_choice", "code_send")
_CHECK = Script.load("codes", "counts", "code_check")
_VOID = Script.load("codes", "code_void")
_LOOK = Script.load("codes", "code_look")
_RELEASE = Script.load("codes", "counts", "code_release")
_COUNT = Script.load("codes", "counts", "code_count")
_UNSEND = Script.load("codes", "counts", "code_unsend")

_RESULTS = {result.value.encode(): result for result in CheckResult}


class RedisChallengeStore:
    """Code records by key (see `store.challenges.ChallengeStore`), of which the used ones take memory here: `octets`.

    The server's time counts (`clock_look.lua`), unless a test gives a `time`. Each change that a check
    makes has reached as many replicas as the client was made for. A code that was called VALID stays used for its life,
    also on a server that was set back: living processes know it.
    """

    checks_at_once = False

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
        self._read_earlier_until: float | None = None
        self._withdrawals = Withdrawals(self._take_back)

    def __repr__(self) -> str:
        return f"<RedisChallengeStore {self._client!r}, {self.used!r}>"

    @property
    def octets(self) -> int:
        """The memory of this process that used codes take."""
        return self.used.octets

    async def send(self, send: Send) -> Sending:
        """Decide which challenge to mail now. Raises LimitExceeded, Unavailable."""
        key = send.key
        await self.settled(key)
        names, head = self.record(key, send.earlier)
        names += self.others(send)
        arguments = [*head, *self.question(send)]
        step = self._client.run(_SEND, names, arguments)
        try:
            packed = await shield(step)
        except CancelledError:
            await self._withdrawals.leave(send, partial(self._decided, send, step))
            raise
        except AnswerLost:
            packed = await self._ask_again(send, names, arguments)
        return self.sending_of(packed, send)

    async def _ask_again(self, send: Send, names: Sequence[bytes], arguments: Sequence[Value]) -> bytes:
        """Ask once more: the record has the mark of the call, so the step is not taken twice."""
        step = self._client.run(_SEND, names, arguments)
        try:
            packed: bytes = await shield(step)
        except CancelledError:
            await self._withdrawals.leave(send, partial(self._decided, send, step))
            raise
        except Unavailable:
            await self.withdraw(send)
            raise
        return packed

    async def _decided(self, send: Send, step: "Future[bytes]") -> Sending:
        return self.sending_of(await step, send)

    def record(self, key: bytes, earlier: bytes = b"") -> tuple[list[bytes], list[Value]]:
        """Return the names of a record and the clock, and the first words of a script about it (`codes.lua`).

        Behind the clock stand the names of a record of an `earlier` version, if there may be one.
        """
        names = self._keys.codes(key)
        earlier_names = self._keys.earlier_codes(earlier) if earlier else ()
        return [*names, self._keys.clock, *earlier_names], [self._at, len(names), len(earlier_names)]

    def others(self, send: Send) -> list[bytes]:
        """Return the last of the keys of a script that decides which challenge to mail: where the mail counts too."""
        return self._keys.mailbox(send.mailbox) + self.counts(send.counted)

    def counts(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the names of the counts of limits, the last of a script's keys (`counts.lua`)."""
        return [name for key in keys for name in self._keys.counts(key)]

    @property
    def reads_earlier(self) -> bool:
        """Whether records of an earlier version may be there: for a day after the first question."""
        now = self.now()
        if self._read_earlier_until is None:
            self._read_earlier_until = now + READ_SECONDS
        return now < self._read_earlier_until

    def question(self, send: Send) -> list[Value]:
        """Return what a script needs to know that decides which challenge to mail (`code_choice.lua`).

        The life of the fresh challenge begins when the server decides; `send.now` is when it would have begun here.
        """
        key, fresh = send.key, send.fresh
        return [
            *(send.rules or self._rules).numbers,
            *(int(send.spaced), send.scope, send.device, int(send.compat)),
            *(fresh.id, fresh.key_id, fresh.expires - send.now, fresh.length),
            *(self._proofs.proof(key, fresh), self._proofs.proof(key, replace(fresh, length=LONG)), fresh.most),
            *_words_of(send.quotas),
            int(bool(send.mailbox)),
        ]

    def sending_of(self, packed: bytes, send: Send) -> Sending:
        """Return the decision in a script's answer (`code_send.lua`) to a question. Raises LimitExceeded."""
        name, *answer = msgpack.unpackb(packed, raw=True)
        if name:
            rules, after = send.rules or self._rules, float(answer[0])
            raise rules.refusal(name.decode(), device=any(answer[1:]), retry_after=after, quotas=send.quotas)
        challenge_id, key_id, expires, attempts, length, next_send, reached, most, until = answer
        challenge = Challenge(challenge_id, key_id.decode(), float(expires), attempts, length, most)
        return Sending(challenge, float(next_send), send.counted, _reached(reached), send.mailbox, float(until))

    async def withdraw(self, send: Send, unless: Unless | None = None) -> None:
        """Take back what a call without an answer may have changed, unless its mail is sent all the same."""
        await self._withdrawals.withdraw(send, unless)

    async def settled(self, key: bytes) -> None:
        """Wait until nothing about a record is to be taken back any more."""
        await self._withdrawals.wait_for(key)

    async def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Check:
        """Count an attempt, compare, and use the code up if it is right. It is asked once, whatever becomes of it."""
        del now
        names, head = self.record(key, attempt.earlier)
        proofs = [part for proof in guess.proofs(key) for part in proof]
        if attempt.earlier:
            proofs += [part for proof in guess.proofs(attempt.earlier) for part in proof]
        words = [
            *head,
            *(attempt.rules or self._rules).numbers,
            *(attempt.scope, attempt.device, attempt.only or b"", attempt.request, attempt.new_device),
            *(int(attempt.compat), *guess.lengths),
            *(self._keys.used, self.used.origin, int(bool(attempt.mailbox))),
            *_words_of(attempt.quotas),
            *proofs,
        ]
        names += [self._keys.nobody, *self._keys.mailbox(attempt.mailbox)]
        names += self.counts([quota.key for quota in attempt.quotas])
        packed = await self._client.run(_CHECK, names, words, replicated=True)
        return self._check_of(msgpack.unpackb(packed, raw=True), attempt)

    def _check_of(self, answer: Sequence[Any], attempt: Attempt) -> Check:
        """Return the check in a script's answer (`code_check.lua`). Raises LimitExceeded.

        A right code is NO_LIVE_CODE where another check has used it: the server was set back. That holds for an answer
        that it has kept, too.
        """
        if answer[0] not in _RESULTS:
            name, after = answer
            quotas = attempt.quotas
            raise self._rules.refusal(name.decode(), device=False, retry_after=float(after), quotas=quotas)
        name, left, retry, device, time, *more = answer
        result = _RESULTS[name]
        check = Check(result, left, float(retry) if retry is not False else None, device, float(time))
        if not more:
            return check
        if result is CheckResult.VALID:
            is_first = self.used.add(more[0], float(more[1]), attempt.request)
            return check if is_first else Check(CheckResult.NO_LIVE_CODE)
        if result is CheckResult.TOO_MANY_ATTEMPTS:
            return replace(check, limit=more[0].decode())
        return replace(check, reached=_reached(more[0]))

    async def void(self, key: bytes, scope: bytes, challenge_id: bytes | None, earlier: bytes = b"") -> None:
        """End the live challenges of a scope unused."""
        names, head = self.record(key, earlier)
        words = [*head, self._rules.numbers[-1], scope, challenge_id or b""]
        await self._client.run(_VOID, names, words, replicated=True)

    async def unsend(self, key: bytes, sending: Sending) -> None:
        """Take a sending back."""
        await self._withdrawals.unsend(key, sending)

    async def refuse(self, key: bytes, sending: Sending) -> None:
        """Take a sending back, and end its challenge."""
        await self._withdrawals.refuse(key, sending)

    def count_at_once(self, quotas: Sequence[Quota]) -> None:
        """Count nothing: the store is waited for."""

    async def count(self, quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        """Count a mail for limits over many addresses. A mail whose answer is lost is counted, or is not."""
        packed = await self._count(quotas)
        name, answer, *reached = msgpack.unpackb(packed, raw=True)
        if name:
            raise self._rules.refusal(name.decode(), device=False, retry_after=float(answer), quotas=quotas)
        return float(answer), _reached(reached[0])

    async def uncount(self, quotas: Sequence[Quota], when: float) -> None:
        """Take a mail back. The server keeps a mark of the step, so that it is taken once however often it is asked."""
        mark = self._keys.undone(token_bytes(16))
        await until_answered(lambda: self._count(quotas, when, mark))

    async def _count(self, quotas: Sequence[Quota], when: Value = "", *marks: bytes) -> bytes:
        names = self.counts([quota.key for quota in quotas])
        words = (self._at, len(names) // max(len(quotas), 1), when, *_words_of(quotas))
        packed: bytes = await self._client.run(_COUNT, [self._keys.clock, *marks, *names], words)
        return packed

    async def budgets(self, key: bytes) -> tuple[Budget, ...]:
        """Return of which limits strangers have spent something at an address, and how much."""
        names, head = self.record(key)
        now, failures, sends = msgpack.unpackb(await self._client.run(_LOOK, names, head), raw=True)
        lane = Lane(STRANGERS, tuple(map(float, failures)), tuple(map(float, sends)))
        return self._rules.budgets(CodeRecord(lanes=(lane,)), float(now))

    async def release(self, key: bytes) -> None:
        """Take back all that was spent of the budgets of an address."""
        names, head = self.record(key)
        words = [*head, "release", int(self.reads_earlier), self._rules.numbers[6]]
        await self._client.run(_RELEASE, names, words, replicated=True)

    async def forget(self, key: bytes, earlier: bytes = b"", mailbox: bytes = b"") -> None:
        """Drop the record of an address, and its mails from that of its mailbox."""
        names, head = self.record(key, earlier)
        words = [*head, "forget", int(bool(mailbox))]
        await self._client.run(_RELEASE, [*names, *self._keys.mailbox(mailbox)], words, replicated=True)

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

    async def _take_back(
        self, key: bytes, what: tuple[Value, Value, Value], counted: Sequence[bytes], mailbox: bytes
    ) -> bool:
        names, head = self.record(key)
        others = self._keys.mailbox(mailbox) + self.counts(counted)
        words = (*head, *what, self._rules.resend, len(counted), int(bool(mailbox)))
        return bool(await self._client.run(_UNSEND, [*names, *others], words))


def _words_of(quotas: Sequence[Quota]) -> list[Value]:
    """Return limits over many addresses as scripts read them (`counts.lua`)."""
    words: list[Value] = [len(quotas)]
    for quota in quotas:
        words += (quota.limit, quota.most, int(quota.is_shadow), int(quota.warns), quota.stretch)
    return words


def _reached(packed: Sequence[tuple[bytes, int]]) -> tuple[Reached, ...]:
    """Return the limits that the log has a line about, as scripts name them."""
    return tuple([Reached(limit.decode(), percent) for limit, percent in packed])
