"""The lease of this replica: the name under which it owns mails, and until when it may send them."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from otpmail.errors import StoreError, Unavailable
from otpmail.store.clock import elapsed
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import LAYOUT, Keys
from otpmail.store.redis.replies import PAUSE_SECONDS, AnswerLost
from otpmail.store.redis.script import Script

_log = logging.getLogger("otpmail")

_RENEW = Script.load("mails", "mail_renew")
_LEAVE = Script.load("mails", "mail_leave")

_BEATS = 5  # renewals in the time of a lease
_MARGIN = 0.1  # of the lease: a mail that was begun in time is with the relay by then
_TRIES = 3  # of a step that the server refuses over the lease
_BEHIND_SECONDS = 0.02  # after the end of another's lease, so that the server agrees that it has ended


class Follower(Protocol):
    """Acts on what a renewal says (`mails`)."""

    def emptied(self) -> None:
        """The server has lost what it had, or a part of it."""

    async def fenced(self, name: str) -> None:
        """Another replica has taken the lease of `name`, and its mails. No mail may be sent before this returns."""

    def cancel(self, mail_ids: Sequence[str]) -> None:
        """Other replicas ask for these mails to be cancelled."""

    def leases_ended(self, owners: Sequence[str]) -> None:
        """The leases of these owners have ended."""

    def compare_count(self, mails: int) -> None:
        """The server knows so many mails of ours."""

    def resumed(self) -> None:
        """Mails may be sent again, after a time in which they might not."""


class Mark(NamedTuple):
    """How many changes of ours the server had counted when a step was sent, going by the answers until then.

    The count begins anew with each `term`: a lease that was taken, or a server found to have lost changes.
    """

    term: int
    total: int


class Step(NamedTuple):
    """The answer of the server to a step, under the `name` that was ours when it was sent, at that mark."""

    name: str
    sent: Mark
    total: int
    answer: list[Any]

    def __repr__(self) -> str:
        return f"<Step of {self.name}>"


class Lease:
    """Holds a lease of `seconds` by renewing it five times as often. `clock` is monotonic, in seconds.

    Its whole state: our `name`, the id of the server's `epoch`, how many of our changes the server counted, and until
    when we may send. Each step that needs the lease gives the name and the epoch. Where they are no longer right the
    server refuses it, and `run` gets a lease again.

    `problem_changed` is called with why the lease can't be renewed, and with an empty text once it is again.
    """

    def __init__(self, client: Client, keys: Keys, seconds: float, *, clock: Callable[[], float] | None = None) -> None:
        self._client = client
        self._keys = keys
        self.seconds = seconds
        self._clock = clock or elapsed
        self.name = ""
        self.epoch = ""
        self.mark = Mark(0, 0)
        self._was_fenced = False  # and has no other name yet
        self._until = 0.0
        self._take_over_at = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._problem = ""
        self._logged = ""  # the last error of a renewal, so that each is logged once
        self.problem_changed: Callable[[str], None] = lambda _: None
        self.follower: Follower

    def __repr__(self) -> str:
        return f"<Lease {self.name} for {self._until - self._clock():.1f} s>"

    def is_held(self) -> bool:
        """Whether the lease is ours for sure. It ends on our clock before it does on the server's."""
        return self._clock() < self._until

    def counted(self, sent: Mark, total: int, changes: int) -> bool:
        """Note the total after a step that was sent at that mark, and has counted so many changes itself.

        The total is 0 if the step has counted nothing. Returns False where the server may lack changes that it had
        when the step was sent: what is ours is written again then.
        """
        if sent.term != self.mark.term:
            return False
        if total and total - changes < sent.total:  # steps under way together are answered in any order
            _log.warning("the store has lost its last changes; they are written again", extra=_BEHIND)
            self.mark = Mark(sent.term + 1, total)
            self.follower.emptied()
            return False
        if total > self.mark.total:
            self.mark = Mark(sent.term, total)
        return True

    async def run(self, ask: Callable[[str, str], Awaitable[list[Any]]], lost: Callable[[str], object] = str) -> Step:
        """Return the server's answer to a step, which `ask` sends with our name and the epoch's id.

        The answer begins with OK and the total for `counted`. A step that the server refuses over the lease is asked
        again once there is one. Where the step may have been carried out, `lost` gets our name, and AnswerLost is
        raised. The same holds where the lease was lost while the answer came, since another replica may have the mails
        then.
        """
        for _ in range(_TRIES):
            name, epoch, sent = self.name, self.epoch, self.mark
            try:
                status, *answer = await ask(name, epoch)
                if status == b"OK" and name != self.name:
                    raise AnswerLost("another replica has taken over the mails of this one")
            except AnswerLost:
                lost(name)
                raise
            if status == b"OK":
                return Step(name, sent, answer[0], answer[1:])
            await self.recover(name, epoch)
        raise Unavailable("the store gives this replica no lease")

    # The life of the lease.

    async def open(self) -> None:
        """Take a lease, and renew it from now on. Raises Unavailable."""
        await self._take(_new_name())
        self._task = asyncio.create_task(self._renew_forever())

    async def close(self) -> None:
        """Hand over what we own, and renew no more. Raises Unavailable while the server is down."""
        await self.stop()
        if self.name:
            self._until = 0.0
            await self._run(_LEAVE, self.name, self.epoch)

    async def stop(self) -> None:
        """Renew no more; the lease ends by itself."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def recover(self, name: str, epoch: str) -> None:
        """Get a lease again after the server has refused this name or epoch. Raises Unavailable."""
        async with self._one_at_a_time:
            if (name, epoch) == (self.name, self.epoch):
                await self._renew()

    async def _renew_forever(self) -> None:
        pause = 0.0  # an earlier process may have left mails
        while True:
            await asyncio.sleep(pause)
            try:
                async with self._one_at_a_time:
                    next_end = await self._renew()
            except Exception as error:  # noqa: BLE001  without a lease no mail is sent, so a mistake of ours may not end it
                self._note_failure(error)
                self._note_gap()
                pause = min(PAUSE_SECONDS, self.seconds / _BEATS)
                continue
            self._note_problem("")
            pause = self.seconds / _BEATS
            if 0 <= next_end < pause:
                pause = next_end + _BEHIND_SECONDS

    def _note_failure(self, error: Exception) -> None:
        """Log what is no failure of the server's, and report the problem unless mails may be sent all the same."""
        is_expected = isinstance(error, Unavailable)
        words = f"the lease of this replica can't be renewed: {error if is_expected else repr(error)}"
        if not is_expected and words != self._logged:
            self._logged = words
            _log.error(words, extra=_UNRENEWED, exc_info=None if isinstance(error, StoreError) else error)
        if not (is_expected and self.is_held()):
            self._note_problem(words)

    def _note_problem(self, problem: str) -> None:
        if not problem:
            self._logged = ""
        if bool(problem) is not bool(self._problem):
            self._problem = problem
            self.problem_changed(problem)

    async def _renew(self) -> float:
        """Renew the lease, and do what the server's answer asks for; returns in how many seconds another's ends."""
        if self._was_fenced:
            return await self._take_another()
        begun, sent = self._clock(), self.mark
        status, *answer = await self._run(_RENEW, self.name, self.epoch, int(self.seconds * 1000), 0)
        if status == b"EPOCH":
            _log.warning("the store was emptied; mails that have not settled are written again", extra=_EMPTIED)
            await self._take(self.name)
            self.follower.emptied()
            self.follower.resumed()
            return -1.0
        if status == b"LOST":
            _log.warning("another replica has taken over the mails of this one, which was not heard of", extra=_LOST)
            self._until = 0.0
            await self.follower.fenced(self.name)
            self._was_fenced = True
            return await self._take_another()
        return self._renewed(begun, sent, answer)

    async def _take_another(self) -> float:
        """Go on under another name, since the mails of the last one are another replica's."""
        await self._take(_new_name())
        self._was_fenced = False
        self.follower.resumed()
        return -1.0

    def _renewed(self, begun: float, sent: Mark, answer: Sequence[Any]) -> float:
        _, count, mails, next_end, cancelled, ended = answer
        is_gap = not self.is_held()
        self._until = begun + self.seconds * (1 - _MARGIN)
        self.counted(sent, count, 1)
        if is_gap:
            self._note_gap()
            self.follower.resumed()
        self.follower.compare_count(mails)
        if cancelled:
            self.follower.cancel([mail_id.decode() for mail_id in cancelled])
        if ended and self._clock() >= self._take_over_at:
            self.follower.leases_ended([owner.decode() for owner in ended])
        return next_end / 1000 if next_end >= 0 else -1.0

    def _note_gap(self) -> None:
        """After the server was away all leases have ended: the others have time to renew theirs."""
        self._take_over_at = self._clock() + 2 * self.seconds / _BEATS

    async def _take(self, name: str) -> None:
        """Take a lease. Where the answer is lost nothing has changed here, and the server refuses the next renewal."""
        begun = self._clock()
        epoch = secrets.token_hex(8)  # for a server that is empty; the one of any other is in its answer
        answer = await self._run(_RENEW, name, epoch, int(self.seconds * 1000), 1)
        self.name, self.epoch, self.mark = name, answer[1].decode(), Mark(self.mark.term + 1, answer[2])
        self._until = begun + self.seconds * (1 - _MARGIN)

    async def _run(self, script: Script, name: str, epoch: str, *args: int) -> Any:
        keys = self._keys
        names = (keys.epoch, keys.owners, keys.own(name), keys.cancels(name))
        return await self._client.run(script, names, (epoch, name, *args))


_EMPTIED = {"event": "store-emptied", "fields": {}}
_BEHIND = {"event": "store-behind", "fields": {}}
_LOST = {"event": "lease-lost", "fields": {}}
_UNRENEWED = {"event": "lease-unrenewed", "fields": {}}


def _new_name() -> str:
    """Return a name that says which layout its owner knows, so that others write nothing that it can't read."""
    return f"{LAYOUT}.{secrets.token_hex(8)}"
