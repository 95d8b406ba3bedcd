"""Keeps accepted mails: those of one turn of the loop in one step of the server, that of a code with its record."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from otpmail.errors import StoreError, Unavailable
from otpmail.store.base import Entry
from otpmail.store.redis.keys import joined
from otpmail.store.redis.notes import Held
from otpmail.store.redis.records import score_of
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.replies import AnswerLost, pairs
from otpmail.store.redis.resp import Value
from otpmail.store.redis.script import Script

_ACCEPT = Script.load("mails", "mail_keep", "mail_accept")
_ISSUE = Script.load("codes", "counts", "mails", "code_choice", "mail_keep", "code_issue")

_TOGETHER = 100  # mails in one step: a millisecond of the server
_TOGETHER_OCTETS = 1 << 20


class Acceptance(NamedTuple):
    """A mail to keep, as octets, and the future of the server's answer about it (see `mail_accept.lua`)."""

    mail_id: str
    score: int
    request: bytes | None
    fingerprint: bytes
    octets: bytes
    head: bytes
    answer: "asyncio.Future[bytes]"

    def __repr__(self) -> str:
        return f"<Acceptance {self.mail_id}>"

    @classmethod
    def of(cls, entry: Entry, replica: Replica) -> Self:
        """Make the octets of an entry that is to be kept in this turn of the loop."""
        mail = entry.mail
        return cls(
            mail.id,
            score_of(entry.priority, mail.create_time),
            replica.keys.request(mail.caller, mail.request_id) if mail.request_id else None,
            entry.fingerprint,
            replica.records.seal_entry(entry),
            replica.records.seal_head(entry),
            asyncio.get_running_loop().create_future(),
        )

    def held_by(self, owner: str) -> Held:
        """Return it as a mail of that owner."""
        return Held(owner, self.score, self.request, self.fingerprint, has_content=True)


class Acceptor:
    """Hands acceptances to the server. Before one is sent, `begun` is called with it and the owner's name.

    `doubtful` is called with one whose answer was lost, so that it is taken back: its caller is refused.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        begun: Callable[[Acceptance, str], None],
        doubtful: Callable[[Acceptance, str], None],
    ) -> None:
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._now = replica.now
        self._begun = begun
        self._doubtful = doubtful
        self._waiting: list[Acceptance] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Acceptor {len(self._waiting)} waiting, {len(self._tasks)} steps under way>"

    def add(self, acceptance: Acceptance) -> None:
        """Keep it with those of this turn of the loop. Its answer raises Unavailable where the server is down."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(acceptance)

    async def issue(self, one: Acceptance, record: Sequence[bytes], words: Sequence[Value]) -> tuple[bytes, bytes]:
        """Keep the mail of a code if the server decides for it, with the `record` of the code, in one step.

        `words` are those of `code_issue.lua` behind the mail's; its answers about the mail and the code are returned.
        """

        async def ask(name: str, epoch: str) -> list[Any]:
            """Run the script in the name of a lease."""
            self._begun(one, name)
            keys, mail = self._words((one,), name, epoch)
            return await self._run_issue([*keys, *record], [*mail, *words])

        step = await self._lease.run(ask, lambda name: self._doubtful(one, name))
        kept, sending = step.answer
        self._lease.counted(step.sent, step.total, 1)
        return kept, sending

    async def _run_issue(self, keys: Sequence[bytes], words: Sequence[Value]) -> list[Any]:
        """Run the step, and ask once more where its answer is lost: a mail that is there is its own mark.

        Raises AnswerLost also where the second answer decides nothing about the first.
        """
        try:
            answer: list[Any] = await self._client.run(_ISSUE, keys, words)
        except AnswerLost as lost:
            with suppress(Unavailable, StoreError):
                answer = await self._client.run(_ISSUE, keys, words)
                if answer[0] == b"OK":
                    return answer
            raise lost from None
        return answer

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch: list[Acceptance] = []
        size = 0
        for one in waiting:
            batch.append(one)
            size += len(one.octets)
            if len(batch) >= _TOGETHER or size >= _TOGETHER_OCTETS:
                self._carry_in_a_task(batch)
                batch, size = [], 0
        if batch:
            self._carry_in_a_task(batch)

    def _carry_in_a_task(self, batch: Sequence[Acceptance]) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, batch: Sequence[Acceptance]) -> None:
        try:
            answers = await self._ask(batch)
        except Exception as error:  # noqa: BLE001  the callers' to handle
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    async def _ask(self, batch: Sequence[Acceptance]) -> Sequence[bytes]:
        async def ask(name: str, epoch: str) -> list[Any]:
            """Run the script for the batch, in the name of a lease."""
            for one in batch:
                self._begun(one, name)
            answer: list[Any] = await self._client.run(_ACCEPT, *self._words(batch, name, epoch))
            return answer

        def lost(name: str) -> None:
            """Note that it is not known which mails of the batch are kept."""
            for one in batch:
                self._doubtful(one, name)

        step = await self._lease.run(ask, lost)
        self._lease.counted(step.sent, step.total, len(batch))
        answers = [b"A"] * len(batch)
        for place, answer in pairs(step.answer):
            answers[place] = answer
        return answers

    def _words(self, batch: Sequence[Acceptance], name: str, epoch: str) -> tuple[list[bytes], list[Any]]:
        keys = self._keys
        names = [keys.epoch, keys.owners, keys.own(name)]
        arguments: list[Any] = [epoch, name, self._now()]
        for one in batch:
            record = keys.mail(one.mail_id)
            names += (record, one.request or record)
            fingerprints = joined(keys.fingerprints(one.fingerprint))
            arguments += (one.mail_id, one.score, one.octets, fingerprints, one.head)
        return names, arguments
