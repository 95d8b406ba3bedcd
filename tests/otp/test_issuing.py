"""Guaranteed codes on a durable store: the record of a code and its mail are there together, or neither is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from cutting_proxy import CuttingProxy
from otpmail.compose.catalog import Templates
from otpmail.delivery.intake import Intake
from otpmail.errors import InvalidArgument, LimitExceeded, Unavailable
from otpmail.model import CheckResult, MailState, WaitFor
from otpmail.otp.codes import CodeBook
from otpmail.otp.policy import Policy
from otpmail.otp.request import CheckRequest, CodeRequest, SentCode
from otpmail.otp.service import OtpService
from otpmail.settings import OtpSettings
from otpmail.store.base import Entry
from otpmail.store.clock import StoreClock
from otpmail.store.redis import RedisStore
from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.keys import Keys
from otpmail.store.retention import Retention
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.mails import SqliteMailStore
from ports import HOST
from redis_server import KINDS, RedisServer
from rig import MailRig, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")

_KEYS = "k1:c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="
_REQUEST = CodeRequest(email="ada@example.org", wait_for=WaitFor.QUEUE)
_NAMED = replace(_REQUEST, request_id="r1", fingerprint=b"f")
_ROOM = 1 << 40
_RECORD = b"}:c:"  # within the key of a code, which the step that issues it names


_SETTINGS = OtpSettings(keys=SecretStr(_KEYS), return_code=True, sends_per_block_hour=1)
_TAGGED = replace(_REQUEST, email="ada+tag@example.org", block="192.0.2.1")


def _sqlite(path: Path, now: Callable[[], float], free: Callable[[Path], int] = lambda _: _ROOM) -> SqliteStore:
    """Return the store of the next process on a file."""
    return SqliteStore(
        Database(path, free=free),
        _SETTINGS.derivation_keys,
        StoreClock(wall=now, elapsed=now),
        retention=Retention(seconds=3600, count=100),
        rules=Policy.of(_SETTINGS),
    )


def _redis(port: int, namespace: str, now: Callable[[], float]) -> RedisStore:
    """Return the store of the next process on a server."""
    clock = StoreClock(wall=now, elapsed=now)
    return RedisStore(
        Client(OneServer((HOST, port)), Access()),
        namespace,
        _SETTINGS.derivation_keys,
        clock,
        rules=Policy.of(_SETTINGS),
        proofs=CodeBook.of(_SETTINGS),
        lease_seconds=5.0,
        retention=Retention(seconds=3600, count=100),
        time=clock,
    )


_NOTHING = "*0\r\n"  # an empty list, as the server writes it


class Service:
    """An OtpService on a durable store, which it opens and closes. With `waits` one mail alone is in its queue."""

    def __init__(self, store: SqliteStore | RedisStore, *, waits: bool = False) -> None:
        self.store = store
        self._waits = waits

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Run it."""
        await self.store.open()
        self.rig = (
            MailRig(store=self.store.mails, contents=self.store.contents, high_water=1, near=1)
            if self._waits
            else MailRig(store=self.store.mails)
        )
        book = CodeBook.of(_SETTINGS)
        self.codes = OtpService(
            _SETTINGS,
            self.store.challenges,
            self.rig.mails,
            Templates.load(_SETTINGS),
            self.rig,
            codes=book,
            issue=self.store.issue,
        )
        self.intake = Intake(self.store.mails, self.rig.lifecycle, code_of=book.code_of, follow_code=self.codes.follow)
        try:
            yield self
        finally:
            await self.codes.close()
            self.rig.lifecycle.close()
            await self.store.close()

    async def send(self, request: CodeRequest = _REQUEST) -> SentCode:
        """Ask for a code."""
        return await self.codes.send_code(call_of(), request)

    async def check(self, code: str) -> CheckResult:
        """Check a code."""
        return (
            await self.codes.validate_code(call_of(), CheckRequest(email="ada@example.org", code=code))
        ).check.result

    async def arrived(self, count: int) -> list[Entry]:
        """Return the mails that an earlier process left, which are to be so many."""
        mails = self.store.mails
        if isinstance(mails, SqliteMailStore):
            entries, _ = await mails.read([left.mail_id for left in mails.left()])
        else:
            entries = []
            async with asyncio.timeout(20):
                async for some in mails.arrivals():
                    entries += some
                    if len(entries) >= count:
                        break
        assert len(entries) == count
        return entries


Process = Callable[[], Service]


class Clock:
    """A clock that stands until the test moves it."""

    time = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """A clock that the test moves."""
    return Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[str], RedisServer]]:
    """Return the server of a kind; it is started for the first test that asks."""
    with ExitStack() as stack:
        running: dict[str, RedisServer] = {}

        def of(kind: str) -> RedisServer:
            if kind not in running:
                running[kind] = stack.enter_context(RedisServer(kind))
            return running[kind]

        yield of


@pytest.fixture(params=["sqlite", *KINDS])
def process(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, server: Callable[[str], RedisServer]
) -> Process:
    """Make the service of the first process on each durable store in turn, and that of the next one on its data."""
    if request.param == "sqlite":
        return lambda: Service(_sqlite(tmp_path / "store.db", clock))
    port, namespace = server(request.param).port, uuid4().hex
    return lambda: Service(_redis(port, namespace, clock))


async def test_both_are_there_after_a_restart(process: Process) -> None:
    """The next process has the mail and the record of a code that was accepted: the code is valid, once."""
    async with process().running() as service:
        sent = await service.send()
        assert sent.mail.state is MailState.QUEUED
        assert service.rig.queue.qsize() == 1
    async with process().running() as service:
        [entry] = await service.arrived(1)
        assert entry.mail.id == sent.mail.id
        assert sent.code.encode() in entry.envelope.content
        with pytest.raises(LimitExceeded):
            await service.send()
        assert await service.check(sent.code) is CheckResult.VALID
        assert await service.check(sent.code) is CheckResult.NO_LIVE_CODE


async def test_the_live_code_is_mailed_again(process: Process, clock: Clock) -> None:
    """A further mail, once it may be sent, has the same code, and the attempts that were made stay counted."""
    async with process().running() as service:
        first = await service.send()
        wrong = "000000" if first.code != "000000" else "111111"
        assert await service.check(wrong) is CheckResult.WRONG_CODE
        clock.time += 31
        second = await service.send()
        assert (second.code, second.reference) == (first.code, first.reference)
        assert second.mail.id != first.mail.id
        assert second.issued.next_send_time == pytest.approx(service.store.mails.now() + 30, abs=1)
        contents = [service.rig.queue.get_nowait().envelope.content for _ in range(2)]
        assert all(first.code.encode() in content for content in contents)
        check = (await service.codes.validate_code(call_of(), CheckRequest(email="ada@example.org", code=wrong))).check
        assert check.attempts_left == 3


async def test_a_code_under_attack_is_the_one_that_is_mailed(process: Process, clock: Clock) -> None:
    """Once the wrong codes of an hour are spent, the mail has the long code of the record, which is valid."""
    async with process().running() as service:
        for _ in range(2):
            sent = await service.send()
            wrong = "000000" if sent.code != "000000" else "111111"
            for _ in range(5):
                assert await service.check(wrong) is CheckResult.WRONG_CODE
            clock.time += 31
        sent = await service.send()
        *_, content = [service.rig.queue.get_nowait().envelope.content for _ in range(3)]
        assert len(sent.code) == 12
        assert sent.code.encode() in content.replace(b"-", b"")
        assert await service.check(sent.code) is CheckResult.VALID


@pytest.mark.parametrize("limit", ["address", "block"])
async def test_the_answer_names_a_limit_that_is_used_up(process: Process, clock: Clock, limit: str) -> None:
    """The time of the next mail is one at which it is sent, and the same for a repeated call of a later process."""
    request = replace(_NAMED, block="192.0.2.1" if limit == "block" else "")
    async with process().running() as service:
        for number in range(1 if limit == "block" else _SETTINGS.sends_per_hour):
            named = replace(request, request_id=f"r{number}")
            sent = await service.send(named)
            service.rig.settle()
            clock.time += 30
        next_send = sent.issued.next_send_time
        assert next_send > service.store.mails.now() + 60
    async with process().running() as service:
        assert (await service.send(named)).issued.next_send_time == next_send
        clock.time += next_send - 1 - service.store.mails.now()
        with pytest.raises(LimitExceeded):
            await service.send(replace(request, request_id="another"))
        clock.time += 1.01
        again = await service.send(replace(request, request_id="another"))
        assert again.mail.id != sent.mail.id


async def test_a_code_near_its_end_is_replaced(process: Process, clock: Clock) -> None:
    """A further mail near the end of a code has a new code, and the old one is live again if that is not sent."""
    async with process().running() as service:
        first = await service.send()
        service.rig.settle()
        clock.time += 400
        second = await service.send()
        assert second.code != first.code
        assert await service.check(first.code) is CheckResult.WRONG_CODE
        service.rig.settle(code=451)
        await service.rig.mails.cancel(call_of().caller, second.mail.id)
        await service.codes.close()
        assert await service.check(first.code) is CheckResult.VALID


@pytest.mark.parametrize(
    ("code", "result"),
    [(250, CheckResult.VALID), (550, CheckResult.NO_LIVE_CODE)],
)
async def test_the_end_of_a_mail_from_the_store(process: Process, code: int, result: CheckResult) -> None:
    """A code whose address the relay refuses is void, also where the next process has sent its mail."""
    async with process().running() as service:
        sent = await service.send()
    async with process().running() as service:
        [entry] = await service.arrived(1)
        service.intake.take_up(entry)
        service.rig.settle(code=code)
        await service.codes.close()
        assert await service.check(sent.code) is result
        assert (await service.send()).code != sent.code


async def test_a_refused_mail_from_the_store_ends_no_code_of_another(process: Process, clock: Clock) -> None:
    """A code that a mail has brought is good also where the next process has sent the same code again, in vain."""
    async with process().running() as service:
        sent = await service.send()
        service.rig.settle()
        clock.time += 31
        assert (await service.send()).code == sent.code
    async with process().running() as service:
        [entry] = await service.arrived(1)
        service.intake.take_up(entry)
        service.rig.settle(code=550)
        await service.codes.close()
        assert (await service.send()).code == sent.code
        assert await service.check(sent.code) is CheckResult.VALID


async def test_a_mail_from_the_store_that_is_not_sent(process: Process) -> None:
    """The next code may be asked for at once where the next process has cancelled a mail; the code stays good."""
    async with process().running() as service:
        sent = await service.send()
    async with process().running() as service:
        [entry] = await service.arrived(1)
        service.intake.take_up(entry)
        await service.rig.mails.cancel(call_of().caller, sent.mail.id)
        await service.codes.close()
        assert (await service.send()).code == sent.code
        assert await service.check(sent.code) is CheckResult.VALID


async def test_a_mail_of_an_earlier_version_that_is_not_sent(process: Process) -> None:
    """A mail that names the record of a purpose ends like others: its code has moved to the record of the address."""
    async with process().running() as service:
        sent = await service.send()
    async with process().running() as service:
        [entry] = await service.arrived(1)
        assert entry.mail.issued is not None
        issued = replace(entry.mail.issued, record=b"of one purpose  ")
        service.intake.take_up(replace(entry, mail=replace(entry.mail, issued=issued)))
        await service.rig.mails.cancel(call_of().caller, sent.mail.id)
        await service.codes.close()
        assert (await service.send()).code == sent.code


async def _expect_nothing_spent(service: Service) -> None:
    """Wait until no mail to the tagged address counts for its limits and those of its mailbox."""
    await service.codes.close()
    async with asyncio.timeout(20):
        while await service.codes.addresses.budgets(call_of(), _TAGGED.email):  # noqa: ASYNC110  nothing to await
            await asyncio.sleep(0.01)


async def _expect_nothing_counted(service: Service) -> None:
    """Check that no mail to the tagged address counts: for none of its limits, its mailbox's, and its block's."""
    await _expect_nothing_spent(service)
    await service.send(replace(_TAGGED, email="eve@example.org"))
    with pytest.raises(LimitExceeded, match="client_ip"):
        await service.send(replace(_TAGGED, email="eve2@example.org"))


async def test_a_mail_from_the_store_that_is_not_sent_counts_nowhere(process: Process) -> None:
    """A mail that the next process has cancelled counts neither for its mailbox nor for limits over many addresses."""
    async with process().running() as service:
        sent = await service.send(_TAGGED)
        assert len(await service.codes.addresses.budgets(call_of(), _TAGGED.email)) == 2
    async with process().running() as service:
        [entry] = await service.arrived(1)
        with pytest.raises(LimitExceeded, match="client_ip"):
            await service.send(replace(_TAGGED, email="eve@example.org"))
        service.intake.take_up(entry)
        await service.rig.mails.cancel(call_of().caller, sent.mail.id)
        await _expect_nothing_counted(service)


async def test_a_mail_that_is_cancelled_to_forget_its_address_counts_nowhere(process: Process) -> None:
    """A mail that ends since its address is forgotten leaves its mailbox, and limits over many addresses, too."""
    async with process().running() as service:
        await service.send(_TAGGED)
        await service.codes.addresses.forget(call_of(), _TAGGED.email)
        await _expect_nothing_counted(service)


async def test_a_forgotten_address_leaves_the_limits_of_its_mailbox(process: Process) -> None:
    """A mail to an address with a tag that was sent counts for its mailbox until the address is forgotten."""
    async with process().running() as service:
        await service.send(_TAGGED)
        service.rig.settle()
        mailbox = _TAGGED.email.partition("+")[0] + "@" + _TAGGED.email.partition("@")[2]
        assert len(await service.codes.addresses.budgets(call_of(), mailbox)) == 2
        await service.codes.addresses.forget(call_of(), _TAGGED.email)
        assert await service.codes.addresses.budgets(call_of(), mailbox) == ()


async def test_a_mail_that_has_waited_in_the_store_counts_nowhere(tmp_path: Path, clock: Clock) -> None:
    """A mail that has waited in the store for its turn, and is cancelled then, counts nowhere either."""
    async with Service(_sqlite(tmp_path / "store.db", clock), waits=True).running() as service:
        await service.send(replace(_REQUEST, email="bob@example.org"))
        sent = await service.send(_TAGGED)
        assert (service.rig.queue.qsize(), len(service.rig.backlog)) == (1, 1)
        running = asyncio.create_task(service.rig.backlog.run(service.intake.take_up, service.intake.resume))
        service.rig.settle()
        async with asyncio.timeout(20):
            while service.rig.queue.qsize() == 0:  # noqa: ASYNC110  the store brings it
                await asyncio.sleep(0.01)
        await service.rig.mails.cancel(call_of().caller, sent.mail.id)
        await _expect_nothing_counted(service)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_mail_that_is_cancelled_in_the_store_counts_nowhere(tmp_path: Path, clock: Clock) -> None:
    """A mail that is cancelled while it waits in the store counts nowhere."""
    async with Service(_sqlite(tmp_path / "store.db", clock), waits=True).running() as service:
        await service.send(replace(_REQUEST, email="bob@example.org"))
        sent = await service.send(_TAGGED)
        assert (service.rig.queue.qsize(), len(service.rig.backlog)) == (1, 1)
        running = asyncio.create_task(service.rig.backlog.run(service.intake.take_up, service.intake.resume))
        await service.rig.mails.cancel(call_of().caller, sent.mail.id)
        await _expect_nothing_counted(service)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
@pytest.mark.parametrize("wait_for", WaitFor)
async def test_a_cancelled_call_counts_nowhere(process: Process, wait_for: WaitFor, *, named: bool) -> None:
    """A code whose call is cancelled counts nowhere, in whichever turn of the loop that is, unless it was answered."""
    request = replace(_TAGGED, wait_for=wait_for)
    answered = 0
    async with process().running() as service:
        for turns in (*range(20), 40, 80, 160):
            if named:
                request = replace(request, request_id=f"r{turns}", fingerprint=b"f")
            call = asyncio.create_task(service.send(request))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            [end] = await asyncio.gather(call, return_exceptions=True)
            if isinstance(end, SentCode):
                answered += 1
                await service.rig.mails.cancel(call_of().caller, end.mail.id)
            else:
                assert isinstance(end, asyncio.CancelledError)
            await asyncio.sleep(0)
            await _expect_nothing_spent(service)
        await _expect_nothing_counted(service)
    assert answered == 0 or wait_for is WaitFor.QUEUE


async def test_a_replaced_code_returns_in_the_next_process(process: Process, clock: Clock) -> None:
    """A code is live again where the next process has the mails of its successor, and can send none of them."""
    async with process().running() as service:
        first = await service.send()
        service.rig.settle()
        clock.time += 400
        sent = [await service.send()]
        clock.time += 31
        sent.append(await service.send())
        assert sent[0].code == sent[1].code != first.code
    async with process().running() as service:
        for entry in await service.arrived(2):
            service.intake.take_up(entry)
        for one in sent:
            assert await service.check(first.code) is CheckResult.WRONG_CODE
            await service.rig.mails.cancel(call_of().caller, one.mail.id)
            await service.codes.close()
        assert await service.check(first.code) is CheckResult.VALID


async def test_the_end_of_a_mail_that_has_waited_in_the_store(tmp_path: Path, clock: Clock) -> None:
    """A code whose address the relay refuses is void, also where its mail waited in the store for its turn."""
    async with Service(_sqlite(tmp_path / "store.db", clock), waits=True).running() as service:
        await service.send(replace(_REQUEST, email="bob@example.org"))
        sent = await service.send()
        assert (service.rig.queue.qsize(), len(service.rig.backlog)) == (1, 1)
        running = asyncio.create_task(service.rig.backlog.run(service.intake.take_up, service.intake.resume))
        service.rig.settle()
        service.rig.settle(await asyncio.wait_for(service.rig.queue.get(), 20), code=550)
        await service.codes.close()
        assert await service.check(sent.code) is CheckResult.NO_LIVE_CODE
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_refused_code_leaves_no_mail(process: Process) -> None:
    """A code that is asked for too soon, and one whose variables are wrong, leave neither a mail nor a record."""
    async with process().running() as service:
        long = replace(_REQUEST, email="bob@example.org", variables={"name": "\udc80"})
        with pytest.raises(InvalidArgument):
            await service.send(long)
        await service.send(replace(_REQUEST, email="bob@example.org"))
        await service.send()
        with pytest.raises(LimitExceeded):
            await service.send()
        assert service.rig.queue.qsize() == 2
    async with process().running() as service:
        assert len(await service.arrived(2)) == 2


async def test_a_full_disk_leaves_neither(tmp_path: Path, clock: Clock) -> None:
    """While the disk is full a code is refused, and with room it is sent at once: no wait for the next mail is left."""
    free = [_ROOM]
    async with Service(_sqlite(tmp_path / "store.db", clock, lambda _: free[0])).running() as service:
        free[0] = 0
        with pytest.raises(Unavailable):
            await service.send()
        assert service.rig.queue.qsize() == 0
        free[0] = _ROOM
        async with asyncio.timeout(20):
            while True:
                try:
                    sent = await service.send()
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        assert await service.check(sent.code) is CheckResult.VALID


async def test_a_cancelled_call_leaves_neither(process: Process) -> None:
    """A call that is cancelled while the store writes leaves no mail to send, and the next code may be sent at once."""
    async with process().running() as service:
        call = asyncio.create_task(service.send(_NAMED))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await service.codes.close()
        assert service.rig.queue.qsize() == 0
        sent = await service.send(_NAMED)
        assert sent.mail.state is MailState.QUEUED
    async with process().running() as service:
        assert [entry.mail.id for entry in await service.arrived(1)] == [sent.mail.id]


async def test_a_repeated_request_has_the_first_code(process: Process) -> None:
    """A request that is repeated too soon for a new mail has the first answer, at once and in the next process."""
    async with process().running() as service:
        first, again = await asyncio.gather(service.send(_NAMED), service.send(_NAMED))
        assert first == again == await service.send(_NAMED)
        with pytest.raises(InvalidArgument, match=r"^request_id: was used before for another request$"):
            await service.send(replace(_NAMED, fingerprint=b"g"))
        assert service.rig.queue.qsize() == 1
    async with process().running() as service:
        for entry in await service.arrived(1):
            service.intake.take_up(entry)
        again = await service.send(_NAMED)
        assert (again.mail.id, again.code, again.issued) == (first.mail.id, first.code, first.issued)
        with pytest.raises(InvalidArgument, match=r"^request_id: was used before for another request$"):
            await service.send(replace(_NAMED, fingerprint=b"g"))


async def test_a_server_without_memory_keeps_neither(clock: Clock) -> None:
    """While the server is full a code is refused, and with room it is sent at once: no wait for the next is left."""
    with RedisServer(KINDS[0]) as server:
        async with Service(_redis(server.port, "full", clock)).running() as service:
            limit = server.command("CONFIG", "GET", "maxmemory").split("\r\n")[4]
            server.command("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(Unavailable):
                await service.send(_NAMED)
            kept = [server.command("KEYS", f"*:{kind}:*") for kind in ("c", "m", "req")]
            assert kept == [_NOTHING] * 3
            assert service.rig.queue.qsize() == 0
            server.command("CONFIG", "SET", "maxmemory", limit)
            async with asyncio.timeout(20):
                while True:
                    try:
                        sent = await service.send(_NAMED)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            assert await service.check(sent.code) is CheckResult.VALID


@pytest.mark.parametrize("mails", [1, 2])
async def test_a_lost_answer_is_asked_for_once_more(
    mails: int, clock: Clock, server: Callable[[str], RedisServer]
) -> None:
    """A code whose step was taken without an answer is sent once, with the code that its mail holds."""
    async with (
        CuttingProxy(server(KINDS[1]).port, only=_RECORD) as proxy,
        Service(_redis(proxy.port, uuid4().hex, clock)).running() as service,
    ):
        if mails == 2:
            await service.send()
            clock.time += 31
        proxy.cuts = 1
        sent = await service.send()
        assert proxy.cut == 1
        contents = [service.rig.queue.get_nowait().envelope.content for _ in range(mails)]
        assert all(sent.code.encode() in content for content in contents)
        with pytest.raises(LimitExceeded):
            await service.send()
        assert await service.check(sent.code) is CheckResult.VALID


async def test_a_mail_whose_answers_are_lost_is_taken_back(clock: Clock, server: Callable[[str], RedisServer]) -> None:
    """A code whose caller is refused, since no answer comes, is mailed neither now nor by the next process."""
    namespace = uuid4().hex
    async with CuttingProxy(server(KINDS[2]).port, only=_RECORD) as proxy:
        async with Service(_redis(proxy.port, namespace, clock)).running() as service:
            proxy.cuts = 2
            with pytest.raises(Unavailable):
                await service.send()
            assert proxy.cut == 2
            proxy.cuts = 0
            assert service.rig.queue.qsize() == 0
            sent = await service.send()  # at once: no mail has gone
            assert await service.check(sent.code) is CheckResult.VALID
            await service.rig.mails.cancel(call_of().caller, sent.mail.id)
        client = Client(OneServer((HOST, server(KINDS[2]).port)), Access())
        assert await client.command("KEYS", Keys(namespace).mail("*")) == [Keys(namespace).mail(sent.mail.id)]
        await client.close()
