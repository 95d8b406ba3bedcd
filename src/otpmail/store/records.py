"""Decisions about codes in a store that runs the rules itself: each is one update of one record."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import NamedTuple, TypeVar

from otpmail.code_record import STRANGERS, Budget, CodeRecord
from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.model import LONG, Check, CheckResult, Reached, Sending
from otpmail.store.challenges import ANY, Attempt, Guess, Quota, Rules, Send
from otpmail.store.counts_codec import NO_COUNTS, counts_needed, decode_counts, encode_counts, with_one_more

T = TypeVar("T")

_RETRY_AFTER = attrgetter("retry_after")
Rule = Callable[[CodeRecord | None], tuple[CodeRecord | None, T]]


class Others(NamedTuple):
    """Other records than the one of a decision, and the octets of counts, by their keys.

    A key without counts has `NO_COUNTS`.
    """

    counts: Callable[[bytes], bytes]
    keep_counts: Callable[[bytes, bytes], None]
    record: Callable[[bytes], CodeRecord | None]
    keep_record: Callable[[bytes, CodeRecord | None], None]


class RuledRecords(ABC):
    """The decisions of `store.challenges.ChallengeStore`, by rules on records that `update` reads and writes."""

    now: Callable[[], float]

    @property
    @abstractmethod
    def reads_earlier(self) -> bool:
        """Whether records of an earlier version may be there."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    @abstractmethod
    async def update(self, key: bytes, rule: Rule[T]) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule returns.

        When the rule raises, the record stays unchanged.
        """

    def send(self, send: Send) -> Awaitable[Sending]:
        """Decide which challenge to mail now."""
        return self.update(send.key, partial((send.rules or self._rules).send, send=send))

    def _counted(self, others: Others, record: CodeRecord | None, send: Send) -> tuple[CodeRecord | None, Sending]:
        """Apply the rule of sending, and count the mail for limits over many addresses: all of it or nothing.

        A call that asks again, since its answer was lost, is counted once.
        """
        quotas, mailbox = send.quotas, send.mailbox
        rules = send.rules or self._rules
        try:
            after, sending = rules.send(record, send)
            reached, spent_until = list(sending.reached), sending.spent_until
            if is_new := after is not record:
                counts, levels = self._with_one_more([others.counts(quota.key) for quota in quotas], quotas, send.now)
                reached += levels
                spent_until = max(spent_until, *map(counts_needed, counts), 0.0)
                if mailbox:
                    noted, more, until = rules.note(others.record(mailbox), send, sending)
                    reached += [one for one in more if one not in reached]
                    spent_until = max(spent_until, until)
            else:
                spent_until = max(spent_until, self._spent_elsewhere(others, send))
        except MemoryFull:
            raise
        except LimitExceeded as error:
            raise self._longest(error, others, send) from None
        if is_new:
            if mailbox:
                others.keep_record(mailbox, noted)
            for quota, octets in zip(quotas, counts, strict=True):
                others.keep_counts(quota.key, octets)
        # fast path: `send.counted` is a call more for each code; held to it by tests/store/redis/test_rules.py
        counted = tuple([quota.key for quota in quotas])
        return after, Sending(sending.challenge, sending.next_send, counted, tuple(reached), mailbox, spent_until)

    def _spent_elsewhere(self, others: Others, send: Send) -> float:
        """Return until when limits elsewhere than at the address are used up, 0.0 where none is.

        A mail that counts there already changes nothing, but has the answer that it had.
        """
        ends = [counts_needed(others.counts(quota.key)) for quota in send.quotas if not quota.is_shadow]
        if send.mailbox:
            rules = send.rules or self._rules
            ends.append(rules.mails_at(others.record(send.mailbox), send.now, compat=send.compat))
        return max([end for end in ends if end > send.now], default=0.0)

    def _longest(self, error: LimitExceeded, others: Others, send: Send) -> LimitExceeded:
        """Return the error for the limit that refuses a mail for longest, where `error` is for the first that did.

        Nothing else refuses the mail then, if nobody else sends one meanwhile.
        """
        errors = [error]
        try:
            self._with_one_more([others.counts(quota.key) for quota in send.quotas], send.quotas, send.now)
        except LimitExceeded as other:
            errors.append(other)
        if send.mailbox:
            try:
                (send.rules or self._rules).note(others.record(send.mailbox), send, Sending(send.fresh, send.now))
            except LimitExceeded as other:
                errors.append(other)
        return max(errors, key=_RETRY_AFTER)

    def _admitted(self, others: Others, quotas: Sequence[Quota], now: float) -> tuple[float, tuple[Reached, ...]]:
        """Count a mail for limits over many addresses: for all of them or none."""
        counts, reached = self._with_one_more([others.counts(quota.key) for quota in quotas], quotas, now)
        for quota, octets in zip(quotas, counts, strict=True):
            others.keep_counts(quota.key, octets)
        return now, tuple(reached)

    def _with_one_more(
        self, known: Sequence[bytes], quotas: Sequence[Quota], now: float
    ) -> tuple[list[bytes], list[Reached]]:
        """Return the octets of counts with one more for each limit, and the limits to log.

        Raises LimitExceeded for the limit that lasts longest of those that are reached.
        """
        counts, reached, refused = [], [], []
        for octets, quota in zip(known, quotas, strict=True):
            after = with_one_more(octets, quota.most, now, quota.stretch)
            if after is None:
                try:
                    one = self._rules.admit(decode_counts(octets), quota, now)
                except LimitExceeded as error:
                    refused.append(error)
                    continue
                after = encode_counts(one.counts, one.ends, one.needed)
                if one.reached is not None:
                    reached.append(one.reached)
            counts.append(after)
        if refused:
            raise max(refused, key=_RETRY_AFTER)
        return counts, reached

    def _taken_back(self, others: Others, quotas: Sequence[Quota], when: float) -> None:
        """Count a mail no more."""
        for quota in quotas:
            counts, ends = self._rules.uncount_at(decode_counts(others.counts(quota.key)), quota, when)
            others.keep_counts(quota.key, encode_counts(counts, ends, 0.0) if counts else NO_COUNTS)

    def _with_mails_at(self, attempt: Attempt, read: Callable[[bytes], CodeRecord | None], now: float) -> Attempt:
        """Return the attempt with what the record of its mailbox says, in every case, as it takes its time."""
        rules = attempt.rules or self._rules
        return attempt._replace(mails_at=rules.mails_at(read(attempt.mailbox), now, compat=attempt.compat))

    def _guessed(
        self, others: Others, record: CodeRecord | None, *, now: float, guess: Guess, attempt: Attempt
    ) -> tuple[CodeRecord | None, Check]:
        """Apply the rule of a check, and count a wrong code for limits over many addresses.

        They neither refuse nor count a check that they are not for, such as one of a long code. Counts are written in
        every case, so that the time does not tell whether a code is live.
        """
        rules = attempt.rules or self._rules
        if record is not None and record.answers and _is_again(record, now, attempt):
            return rules.check(record, now, guess, attempt)
        is_limited = is_at_short_codes(record, attempt) or rules.is_limited(record, now, attempt)
        quotas = attempt.quotas if is_limited else [quota._replace(is_shadow=True) for quota in attempt.quotas]
        known = [others.counts(quota.key) for quota in quotas]
        counted, reached = self._with_one_more(known, quotas, now)
        after, check = rules.check(record, now, guess, attempt)
        is_counted = is_limited and check.result is CheckResult.WRONG_CODE and after is not record
        is_counted = is_counted and not _is_free(after, attempt)
        for quota, octets in zip(quotas, counted if is_counted else known, strict=True):
            others.keep_counts(quota.key, octets)
        if is_counted and reached:
            check = replace(check, reached=tuple(reached))
        return after, check

    def _uncounted(self, others: Others, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """Apply the rule of a mail that was not sent, which counts for no limit then, however often this is asked."""
        after, mail = self._rules.unsend(record, sending)
        if mail is not None:
            for key in sending.counted:
                counts, ends = self._rules.uncount(decode_counts(others.counts(key)), mail)
                others.keep_counts(key, encode_counts(counts, ends, 0.0) if counts else NO_COUNTS)
            if mailbox := sending.mailbox:
                others.keep_record(mailbox, self._rules.unnote(others.record(mailbox), mail))
        return after, None

    def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Awaitable[Check]:
        """Count an attempt, compare, and use the code up if it is right."""
        return self.update(key, partial((attempt.rules or self._rules).check, now=now, guess=guess, attempt=attempt))

    def void(self, key: bytes, scope: bytes, challenge_id: bytes | None, earlier: bytes = b"") -> Awaitable[None]:
        """End the live challenges of a scope unused."""
        del earlier
        return self.update(key, partial(self._rules.void, scope=scope, challenge_id=challenge_id))

    def budgets(self, key: bytes) -> Awaitable[tuple[Budget, ...]]:
        """Return of which limits strangers have spent something at an address, and how much."""
        now = self.now()
        return self.update(key, lambda record: (record, self._rules.budgets(record, now)))

    def release(self, key: bytes) -> Awaitable[None]:
        """Take back all that was spent of the budgets of an address."""
        return self.update(key, partial(self._rules.release, at=self.now() if self.reads_earlier else None))

    @abstractmethod
    def forget(self, key: bytes, earlier: bytes = b"", mailbox: bytes = b"") -> Awaitable[None]:
        """Drop the record of an address, and its mails from that of its mailbox."""

    def _forgotten(self, others: Others, record: CodeRecord | None, mailbox: bytes) -> tuple[None, None]:
        """Return that no record is left, and take the mails of strangers out of the record of the mailbox."""
        mails = [mail for lane in record.lanes if lane.device == STRANGERS for mail in lane.sends] if record else []
        shared = others.record(mailbox) if mailbox and mails else None
        if shared is not None:
            for mail in mails:
                shared = self._rules.unnote(shared, mail)
            others.keep_record(mailbox, shared)
        return None, None

    @abstractmethod
    def unsend(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take a sending back, and what it has counted for."""

    def refuse(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take a sending back, and end its challenge."""
        return self.update(key, partial(self._rules.refuse, sending=sending))


def is_at_short_codes(record: CodeRecord | None, attempt: Attempt) -> bool:
    """Whether an attempt is one of strangers where no code is long: limits over many addresses hold for it."""
    # fast path: most attempts are such, 1.5 us; held to the full path by tests/otp/test_quotas.py
    for slot in record.slots if record is not None else ():
        if slot.challenge is not None and slot.challenge.length == LONG:
            return False
    return attempt.device == STRANGERS


def _is_free(record: CodeRecord | None, attempt: Attempt) -> bool:
    """Whether a check has changed no more than the answers that are kept."""
    answers = record.answers if record is not None else ()
    return any(answer.request == attempt.request and answer.is_free for answer in answers)


def _is_again(record: CodeRecord, now: float, attempt: Attempt) -> bool:
    """Whether a check has its answer already."""
    return any(answer.request == attempt.request and answer.until > now for answer in record.answers)
