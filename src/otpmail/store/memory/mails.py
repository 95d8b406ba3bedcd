"""Request ids and settled mails in this process. Accepted mails need no place here: they are in memory anyway."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.base import (
    Accepted,
    Conflict,
    Earlier,
    Entry,
    Progress,
    Request,
    Running,
)
from otpmail.store.erasing import erased
from otpmail.store.forgotten import Forgotten, Span, owner_of
from otpmail.store.memory.histories import Histories, History
from otpmail.store.retention import Retention
from otpmail.store.sole import SoleOwner
from otpmail.store.wanted import Wanted, ever

_BATCH_OCTETS = 64 << 10  # of mails that are decoded at a time: a millisecond
_ACCEPTED = Accepted()

Accept = Callable[[Sequence[Entry]], Awaitable[object]]


class MemoryMailStore(SoleOwner):
    """Request ids of a day and of open mails, and the settled mails of the last while (see `store.base.MailStore`).

    Every decision returns without suspending, so that a hot path that awaits it costs nothing. Each caller has a
    history of its own, within `retention`. `octets` is the memory that all take, at most about its octets: the caller
    with most of it forgets first.
    """

    durable = False

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        retention: Retention,
        forgotten: Forgotten | None = None,
    ) -> None:
        self.now = clock
        self._forgotten = forgotten or Forgotten()
        self._retention = retention
        self._histories = Histories(clock, replace(retention, octets=retention.octets // 2))
        self._nothing = History(retention)  # of callers without mails
        self.octets = 0
        self._open: dict[str, _Claim] = {}  # request ids of mails that have not settled, however long that takes

    def __repr__(self) -> str:
        histories = self._histories.values()
        settled, requests = sum(len(one.settled) for one in histories), sum(len(one.requests) for one in histories)
        return f"<MemoryMailStore {settled} settled, {len(self._open) + requests} request ids>"

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep the request ids of these mails; their content stays with this process, and ends with it."""
        return [await self._accept(entry) for entry in entries]

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict:
        """Keep a request id for the mail that is about to be accepted, unless it came before."""
        key = _key(request.caller, request.request_id)
        earlier = self._find(request, key, mail_id)
        if earlier is not None:
            return earlier
        self._open[key] = request.fingerprint, mail_id
        return _ACCEPTED

    def release(self, request: Request, mail_id: str) -> None:
        """Free a request id that was claimed for a mail which was not accepted: the caller's next try counts as new."""
        self._end_claim(_key(request.caller, request.request_id), mail_id)

    async def begin_attempts(self, progresses: Mapping[str, Progress]) -> None:
        """Return at once: nothing of an attempt outlives this process."""

    def deferred(self, mail_id: str, progress: Progress) -> None:
        """Return at once: the job in this process has all of it."""

    def settle(self, mail: Mail, *, keep_request: bool = True, entry: Entry | None = None) -> None:
        """Remember how the mail ended, under its id and, with `keep_request`, under its request id; `entry` too."""
        now = mail.settle_time or self.now()
        if mail.create_time <= self._forgotten.latest and (left := self._forgotten.left_of(mail)) is not None:
            mail, entry = left, None
        request = None
        if mail.request_id:
            key = _key(mail.caller, mail.request_id)
            request = self._end_claim(key, mail.id)
        kept = codec.encode_settled(
            mail,
            forgotten=now + self._retention.seconds,
            request_ends=mail.create_time + self._retention.request_seconds if keep_request else 0.0,
            fingerprint=b"" if request is None else request[0],
        )
        history = self._histories.get(mail.caller)
        if history is None:
            history = self._histories[mail.caller]
            self.count()  # without those of histories that were dropped for it
        # fast path: each mail comes here, 0.2 us; held to `Histories.octets` by tests/store/memory/test_histories.py
        settled, contents, requests = history.settled, history.contents, history.requests
        before = settled.octets + contents.octets + requests.octets
        settled.add(mail.id, kept, now)
        if request is not None:  # one that is not kept answers no repeated request, and is still found by `find`
            (requests if keep_request else settled).add(key, kept, now)
        if entry is not None:
            contents.add(mail.id, codec.encode_entry(entry), now)
        self.octets += settled.octets + contents.octets + requests.octets - before
        while self.octets > self._retention.octets and self.forget_oldest():
            pass

    def load(self, persons: Mapping[bytes, Span]) -> None:
        """Forget the persons, by their names, whom a store that outlives this process has noted."""
        for name, span in persons.items():
            self._forgotten.put(name, span)
        self.count()

    def count(self) -> None:
        """Count again the memory that is taken, also by persons who are to be forgotten."""
        self.octets = self._histories.octets + self._forgotten.octets

    def forget_oldest(self) -> bool:
        """Forget something of the caller with most to remember (`History.forget_oldest`); False without any."""
        forgotten = self._histories.forget_oldest()
        self.count()
        return forgotten

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail, if it has settled and is still remembered."""
        kept = self._history(caller).settled.get(mail_id)
        if kept is None:
            return None
        mail, forgotten, _, _ = codec.decode_settled(kept)
        return mail if mail.caller == caller and forgotten > self.now() else None

    async def caller_of(self, mail_id: str) -> str | None:
        """Return whose mail it is, if it has settled and is still remembered."""
        for caller in tuple(self._histories):
            if await self.get(caller, mail_id) is not None:
                return caller
        return None

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Return that caller's mail of a request id, while it or the id is remembered, None otherwise."""
        key = _key(caller, request_id)
        if key in self._open:
            return Running(self._open[key][1])
        history = self._history(caller)
        kept = [codec.decode_settled(one) for one in (history.requests.get(key), history.settled.get(key)) if one]
        now = self.now()
        mails = [mail for mail, forgotten, request_ends, _ in kept if max(forgotten, request_ends) > now]
        return Earlier(max(mails, key=lambda mail: mail.create_time)) if mails else None

    async def retryable(self, caller: str, mail_id: str) -> Entry | None:
        """Return that caller's settled mail with its content, as it settled; None where its content is not kept."""
        mail, octets = await self.get(caller, mail_id), self._history(caller).contents.get(mail_id)
        if mail is None or octets is None:
            return None
        entry = codec.decode_entry(octets)
        return entry if entry.mail.settle_time == mail.settle_time else None

    async def reopen(self, entry: Entry, settle_time: float) -> bool:
        """Forget that a mail has settled, unless it did not at that time or its request id has another mail."""
        mail, history = entry.mail, self._history(entry.mail.caller)
        settled = await self.get(mail.caller, mail.id)
        if settled is None or settled.settle_time != settle_time or history.contents.get(mail.id) is None:
            return False
        if mail.request_id:
            found = await self.find(mail.caller, mail.request_id)
            if isinstance(found, Running) or (found is not None and found.mail.id != mail.id):
                return False
            key = _key(mail.caller, mail.request_id)
            if kept := history.requests.get(key) or history.settled.get(key):
                self._open[key] = codec.decode_settled(kept)[3], mail.id
            history.requests.discard(key)
            history.settled.discard(key)
        history.settled.discard(mail.id)
        history.contents.discard(mail.id)
        self.count()
        return True

    async def reopen_in(self, accept: Accept, entry: Entry, settle_time: float) -> bool:
        """Reopen a mail that settled in this memory alone in a store that outlives it, whose `accept` keeps the mail.

        Returns False as `reopen` does. Raises what `accept` raises; the mail has settled as before then.
        """
        kept = await self.retryable(entry.mail.caller, entry.mail.id)
        if kept is None or not await self.reopen(entry, settle_time):
            return False
        try:
            await accept([entry])
        except BaseException:
            self.settle(kept.mail, entry=kept)
            raise
        return True

    async def begin_forgetting(self, caller: str, person: bytes, until: float) -> None:
        """Have the mails that are open now settle without a person."""
        self._forgotten.add(person, Span(self.now(), until, owner_of(caller)))
        self.count()

    async def erase(self, person: bytes) -> int:
        """Erase a person from settled mails and request ids, in slices; returns from how many mails."""
        mails: set[str] = set()
        for history in list(self._histories.values()):
            for kind in (history.settled, history.requests):
                for some in kind.batches(_BATCH_OCTETS):
                    for key, kept in some:
                        if (left := erased(kept, person)) is not None:
                            kind.replace(key, kept, left.octets)
                            history.contents.discard(left.mail_id)
                            mails.add(left.mail_id)
                    self.count()
                    await asyncio.sleep(0)
        return len(mails)

    async def remembered(self, wanted: Wanted = ever) -> AsyncIterator[Sequence[Mail]]:
        """Yield the settled mails of all callers that are remembered, in slices."""
        del wanted  # they are in no order
        now = self.now()
        for history in list(self._histories.values()):
            for some in history.settled.batches(_BATCH_OCTETS):
                found = [codec.decode_settled(kept) for key, kept in some if "\0" not in key]  # else a request id's
                yield [mail for mail, forgotten, _, _ in found if forgotten > now]

    def _history(self, caller: str) -> History:
        """Return a caller's history to look into it; to ask after a mail makes none."""
        return self._histories.get(caller, self._nothing)

    def _end_claim(self, key: str, mail_id: str) -> "_Claim | None":
        """Return the claim of a request id, and hold it no more; None where that mail does not have it."""
        claim = self._open.get(key)
        return self._open.pop(key) if claim is not None and claim[1] == mail_id else None

    async def _accept(self, entry: Entry) -> Accepted | Earlier | Running | Conflict:
        mail = entry.mail
        if not mail.request_id:
            return _ACCEPTED
        return await self.claim(Request(mail.caller, mail.request_id, entry.fingerprint), mail.id)

    def _find(self, request: Request, key: str, mail_id: str) -> Earlier | Running | Conflict | None:
        claim = self._open.get(key)
        if claim is not None:
            known, owner = claim
            if known != request.fingerprint:
                return Conflict()
            return None if owner == mail_id else Running(owner)
        kept = self._history(request.caller).requests.get(key)
        if kept is None:
            return None
        mail, _, ends, known = codec.decode_settled(kept)
        if ends <= self.now():
            return None
        return Earlier(mail) if known == request.fingerprint else Conflict()


_Claim = tuple[bytes, str]
"""The fingerprint that came with a request id, and the id of its mail."""


def _key(caller: str, request_id: str) -> str:
    return f"{caller}\0{request_id}"
