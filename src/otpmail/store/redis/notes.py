"""Changes that nobody waits for: written in their order, many in one step, and repeated while the server is down."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Any, NamedTuple

from otpmail.errors import StoreError, Unavailable
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.replies import PAUSE_SECONDS, AnswerLost, pairs
from otpmail.store.redis.script import Script
from otpmail.store.retention import Retention
from otpmail.values import frozen

_log = logging.getLogger("otpmail")

_NOTE = Script.load("mails", "mail_content", "mail_note")

NOTE_SECONDS = 0.01
"""How long a change waits for others."""

_TOGETHER = 200  # in one step: a millisecond or two of the server
_TOGETHER_OCTETS = 1 << 20
_MOST_PATIENCE = 256 << 20  # octets for which a step gets time, where an answer did not come in time
_NUMBERS = 4
_IS_ACCEPTED, _HAS_NO_ROOM = 2, 3


@frozen()
class Held:
    """A mail of ours, or a claimed request id alone (`has_content` is not set then), as the server knows it.

    `owner` is the name under which it is ours, `request` the key of its request id, if it has one. A claim has a digest
    of its `caller`. `is_taken_over`: an owner that has ended had claimed it before.
    """

    owner: str
    score: int
    request: bytes | None = field(repr=False)
    fingerprint: bytes = field(repr=False)
    has_content: bool
    caller: bytes = field(default=b"", repr=False)
    is_taken_over: bool = False


class Note(NamedTuple):
    """One change of a mail. `octets` and `more` are made when it is written, so that they take no memory until then.

    They, `numbers`, `time` and `caller` are what its kind has in `mail_note.lua`.
    """

    kind: str
    mail_id: str
    held: Held
    octets: Callable[[], bytes | None] = bytes
    numbers: tuple[float, ...] = ()
    time: float = 0.0
    more: Callable[[], bytes] = bytes
    caller: bytes = b""

    def __repr__(self) -> str:
        return f"<Note {self.kind} {self.mail_id}>"


class Notes:
    """Writes notes one step after the other. `retention` bounds the contents for retries on the server.

    It also says for how long the server remembers settled mails, and those with a request id.

    `accepted` is called with a note that would take back a mail of which another call knows. `found_no_room` is called
    where the server had no room for a content.
    Its whole state: the notes `waiting`, the number `pending` for each mail and request id, the numbers added and
    written, and the task that writes.
    """

    def __init__(self, replica: Replica, retention: Retention) -> None:
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._most_octets = retention.octets
        self._times = int(1000 * retention.seconds), int(1000 * retention.request_seconds)
        self._patience = 0
        self._one_at_a_time = asyncio.Lock()
        self.waiting: deque[Note] = deque()
        self.pending: dict[bytes | str, int] = {}
        self._added = 0
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._step: asyncio.Future[bool] | None = None
        self.accepted: Callable[[Note], None] = lambda _: None
        self.found_no_room: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Notes {len(self.waiting)} to write>"

    def add(self, note: Note) -> None:
        """Write it behind those that wait, in a hundredth of a second or so."""
        self.waiting.append(note)
        self._added += 1
        for key in (note.mail_id, note.held.request):
            if key is not None:
                self.pending[key] = self.pending.get(key, 0) + 1
        if self._task is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._begin)

    async def wait_for(self, key: bytes | str) -> None:
        """Wait until the notes about a mail or request id are written, but not for a server that is down."""
        while key in self.pending and await self._next_step():
            pass

    async def wait_for_all(self) -> None:
        """Wait until the notes that there are now are written, but not for a server that is down."""
        last = self._added
        while self._written < last and await self._next_step():
            pass

    async def close(self, seconds: float) -> None:
        """Write what waits, in `seconds` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.waiting:
                    await self._next_step()
        if self._task is not None:
            self._task.cancel()

    async def _next_step(self) -> bool:
        """Write at once, and wait for the end of a step; returns whether the server has answered."""
        if self._timer is not None:
            self._timer.cancel()
            self._begin()
        if self._step is None:
            self._step = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._step)

    def _end_step(self, *, answered: bool) -> None:
        step, self._step = self._step, None
        if step is not None:
            step.set_result(answered)

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._write_all())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        pause = NOTE_SECONDS  # for notes that came after the task's last look
        if task.cancelled():
            self._end_step(answered=False)  # nobody may wait for ever
        elif (error := task.exception()) is not None:
            context = {"message": "changes of the store could not be written", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            self._end_step(answered=False)
            pause = PAUSE_SECONDS
        if self.waiting and not task.cancelled():
            self._timer = asyncio.get_running_loop().call_later(pause, self._begin)

    async def _write_all(self) -> None:
        most = _TOGETHER
        while self.waiting:
            try:
                batch, words = self._next(most)
                written = await self._write(batch, words)
            except Unavailable:
                self._end_step(answered=False)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001  StoreError, or a mistake of ours
                if most > 1:  # one of them is the cause: the others must not wait for it
                    most = 1
                    continue
                _log.error(
                    "a change of the store could not be written, and was dropped: %s",
                    error if isinstance(error, StoreError) else repr(error),
                    extra={"event": "store-change-dropped", "fields": {}},
                )
                batch, written = [self.waiting[0]], True
            if written:
                for _ in batch:
                    self._forget(self.waiting.popleft())
                most = _TOGETHER
            self._end_step(answered=True)

    def _forget(self, note: Note) -> None:
        self._written += 1
        for key in (note.mail_id, note.held.request):
            if key is not None:
                self.pending[key] -= 1
                if not self.pending[key]:
                    del self.pending[key]

    def _next(self, most: int) -> tuple[list[Note], list[tuple[Any, ...]]]:
        """Return the first notes, as many as one step takes, and the words for each."""
        batch: list[Note] = []
        words: list[tuple[Any, ...]] = []
        size = 0
        for note in self.waiting:
            octets = note.octets()
            kind = note.kind if octets is not None else "nothing"  # its mail has settled meanwhile
            batch.append(note)
            words.append(self._words(note, kind, octets or b""))
            size += len(octets or b"") + len(words[-1][-2])
            if len(batch) >= most or size >= _TOGETHER_OCTETS:
                break
        return batch, words

    async def _write(self, batch: Sequence[Note], words: Sequence[tuple[Any, ...]]) -> bool:
        """Write them in one step; returns False where they must be written again. Raises Unavailable.

        Two steps at once may be carried out in either order, so the other one waits.
        """
        keys, lease = self._keys, self._lease
        async with self._one_at_a_time:
            name, epoch, sent = lease.name, lease.epoch, lease.mark
            names = [keys.epoch, keys.owners, keys.settled, keys.answered, keys.contents, keys.content_octets]
            names += (keys.remembering, keys.answering)
            for note in batch:
                record = keys.mail(note.mail_id)
                names += (keys.own(note.held.owner), record, note.held.request or record)
            arguments: list[Any] = [epoch, name, self._most_octets, *self._times]
            for some in words:
                arguments += some
            status, *answer = await self._run(names, arguments)
        if status == b"EPOCH":
            await self._recover(name, epoch)
            return False
        if not lease.counted(sent, answer[0], len(batch)):
            return False  # settlements of mails that the server has lost had no effect
        for place, result in pairs(answer[1:]):
            if result == _IS_ACCEPTED:
                self.accepted(batch[place])
            elif result == _HAS_NO_ROOM:
                self.found_no_room()
        return True

    async def _recover(self, name: str, epoch: str) -> None:
        """Get a lease again. Raises Unavailable, whatever the server says, since no note is the cause."""
        try:
            await self._lease.recover(name, epoch)
        except StoreError as error:
            raise Unavailable(str(error), retry_after=PAUSE_SECONDS) from error

    async def _run(self, names: Sequence[bytes], arguments: Sequence[Any]) -> list[Any]:
        """Run the step. After a lost answer the next one gets more time: a large mail may have to go a slow way."""
        try:
            answer: list[Any] = await self._client.run(_NOTE, names, arguments, reply_octets=self._patience)
        except AnswerLost:
            self._patience = min(_MOST_PATIENCE, 2 * self._patience or _TOGETHER_OCTETS)
            raise
        self._patience = 0
        return answer

    async def write_next(self, notes: Sequence[Note], undo: Sequence[Note]) -> None:
        """Write notes behind those that wait now. Raises Unavailable, and adds those that `undo` them then.

        An earlier note about one of these mails would undo what they say. A note about the mail that was sent before
        them must be there if this process ends over one of them.
        """
        try:
            await self._write_next(notes)
        except (Unavailable, StoreError) as error:  # some may have been written
            for note in undo:
                if note.mail_id not in self.pending:  # one for each mail, however long the server is down
                    self.add(note)
            if isinstance(error, StoreError):
                raise Unavailable(str(error), retry_after=PAUSE_SECONDS) from error
            raise

    async def _write_next(self, notes: Sequence[Note]) -> None:
        await self.wait_for_all()
        if any(note.mail_id in self.pending for note in notes):  # the server is down
            raise Unavailable("the store can't be reached", retry_after=PAUSE_SECONDS)
        for start in range(0, len(notes), _TOGETHER):
            some = notes[start : start + _TOGETHER]
            while not await self._write(some, [self._words(note, note.kind, note.octets() or b"") for note in some]):
                pass

    def _words(self, note: Note, kind: str, octets: bytes) -> tuple[Any, ...]:
        held = note.held
        [fingerprint, *_] = self._keys.fingerprints(held.fingerprint)
        numbers = (*note.numbers, 0, 0, 0, 0)[:_NUMBERS]
        return (kind, note.mail_id, held.owner, octets, fingerprint, *numbers, note.time, note.more(), note.caller)

    def repeat_settled(self) -> None:
        """Write the settlements that wait to a server that was emptied, and so no longer knows their mails."""
        self.waiting = deque(note._replace(kind="again") if note.kind == "settle" else note for note in self.waiting)
