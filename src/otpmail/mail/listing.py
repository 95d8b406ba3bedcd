"""Lists the mails of a caller, newest first, page by page."""

import asyncio
import base64
import heapq
import math
import struct
from collections.abc import Iterable
from dataclasses import field

from otpmail.address import Address, parse_address
from otpmail.callers import Caller
from otpmail.cooperate import TURN_SECONDS
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import InvalidArgument
from otpmail.mail.idempotency import check_request_id
from otpmail.mail.operators import ANY, whose
from otpmail.mail.turns import Turns
from otpmail.model import Mail, MailState
from otpmail.store.base import MailStore
from otpmail.values import frozen

DEFAULT_PAGE, MOST_PAGE = 100, 1000
"""Mails of a page: without a size, and at most."""

MOST_RECIPIENTS = 1000
"""Recipients of a page, so that it stays far below the 4 MiB that clients take; one mail may have more."""

_MOST_TOKEN = 200
_PLACE = struct.Struct(">d")

_Place = tuple[float, str]
"""When a mail was accepted, and its id: the order of all mails, which nothing changes."""

_LAST: _Place = (float("inf"), "")


@frozen(kw_only=True)
class Query:
    """Which mails to list. None and empty fields leave none out; `page_token` names the page, empty the first.

    `caller` are whose mails they are, for an operator (`mail.operators.whose`).
    """

    page_size: int = 0
    page_token: str = ""
    caller: str = ""
    state: MailState | None = None
    recipient: str = field(default="", repr=False)
    request_id: str = ""


@frozen()
class Page:
    """Mails, newest first, and the token of the next page; empty on the last one."""

    mails: tuple[Mail, ...]
    next_page_token: str = ""


class Listing:
    """Reads all mails for each page, since none are kept in order, and gives way to others between two slices.

    One page is made at a time. A mail that is accepted, or forgotten, meanwhile moves no other to another page.
    """

    def __init__(self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog, turns: Turns) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._backlog = backlog
        self._give_way, self._clock = turns.wait, turns.clock
        self._one_at_a_time = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Listing {self._lifecycle!r}>"

    async def list(self, caller: Caller, query: Query) -> Page:
        """Return a page. Raises InvalidArgument for a field that can't be one, and PermissionDenied as `whose` does."""
        size = _size(query.page_size)
        matcher = _Matcher(caller, query)
        newest = _Newest(size + 1)
        async with self._one_at_a_time:
            async for waiting in self._backlog.jobs():
                await self._look(waiting, matcher, newest)
                await self._give_way()
            jobs = dict(self._lifecycle.jobs)
            async for some in self._store.remembered(lambda: (newest.least, matcher.most)):
                await self._look([mail for mail in some if mail.id not in jobs], matcher, newest)
                await self._give_way()
            jobs |= self._lifecycle.jobs  # also those that have settled meanwhile, or come from another process
            await self._look(jobs.values(), matcher, newest)
        return _page(newest.descending(), size)

    async def _look(self, found: Iterable[Mail | Job], matcher: "_Matcher", newest: "_Newest") -> None:
        ends = self._clock() + TURN_SECONDS
        for one in found:
            if matcher.has(one):
                newest.add(one)
            if self._clock() >= ends:
                await self._give_way()
                ends = self._clock() + TURN_SECONDS


class _Matcher:
    """Matches the mails that a query asks for, behind the place that its token names."""

    def __init__(self, caller: Caller, query: Query) -> None:
        self._of = whose(caller, query.caller)
        self._is_of_all = self._of == ANY
        self._state, self._request_id = query.state, query.request_id
        if query.request_id:
            check_request_id(query.request_id)
        self._recipient = parse_address(query.recipient, "recipient").key if query.recipient else ""
        self._before = _place(query.page_token) if query.page_token else _LAST

    @property
    def most(self) -> float:
        """When a mail of the page was accepted at the latest."""
        return self._before[0]

    def has(self, one: Mail | Job) -> bool:
        """Whether the mail is."""
        return (
            (one.create_time, one.id) < self._before
            and (self._is_of_all or one.caller == self._of)
            and self._state in {None, one.state}
            and (not self._request_id or one.request_id == self._request_id)
            and (not self._recipient or any(Address(spec).key == self._recipient for spec in _recipients(one)))
        )


class _Newest:
    """Keeps the newest of the mails that it is given: `most` of them, and a mail more than fits into a page at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, str, Mail | Job]] = []
        self._ids: set[str] = set()
        self._recipients = 0

    @property
    def least(self) -> float:
        """When a mail was accepted at the least that would be kept."""
        is_full = len(self._heap) >= self._most or self._recipients > MOST_RECIPIENTS
        return self._heap[0][0] if is_full else -math.inf

    def add(self, one: Mail | Job) -> None:
        """Add a mail, once."""
        if one.id in self._ids:
            return
        self._ids.add(one.id)
        heapq.heappush(self._heap, (one.create_time, one.id, one))
        self._recipients += _count(one)
        while len(self._heap) > self._most or self._recipients - _count(self._heap[0][2]) > MOST_RECIPIENTS:
            _, mail_id, oldest = heapq.heappop(self._heap)
            self._ids.discard(mail_id)
            self._recipients -= _count(oldest)

    def descending(self) -> list[Mail | Job]:
        """Return them, the newest first."""
        return [one for _, _, one in sorted(self._heap, reverse=True)]


def _count(one: Mail | Job) -> int:
    return len(one.envelope.recipients if isinstance(one, Job) else one.recipients)


def _recipients(one: Mail | Job) -> Iterable[str]:
    return one.envelope.recipients if isinstance(one, Job) else (result.address for result in one.recipients)


def _page(found: list[Mail | Job], size: int) -> Page:
    """Return the first mails as a page: as many as it may have, and as few as their recipients make it."""
    mails: list[Mail] = []
    recipients = 0
    for one in found[:size]:
        mail = one.mail if isinstance(one, Job) else one
        recipients += len(mail.recipients)
        if mails and recipients > MOST_RECIPIENTS:
            break
        mails.append(mail)
    return Page(tuple(mails), _token(mails[-1]) if len(mails) < len(found) else "")


def _size(asked: int) -> int:
    if asked < 0:
        raise InvalidArgument("page_size", "is negative")
    return min(asked or DEFAULT_PAGE, MOST_PAGE)


def _token(mail: Mail) -> str:
    return base64.urlsafe_b64encode(_PLACE.pack(mail.create_time) + mail.id.encode()).decode()


def _place(token: str) -> _Place:
    try:
        if len(token) > _MOST_TOKEN:
            raise ValueError(token)
        octets = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        (create_time,) = _PLACE.unpack_from(octets)
        return create_time, octets[_PLACE.size :].decode()
    except (ValueError, struct.error):
        raise InvalidArgument("page_token", "is not one that this service has given") from None
