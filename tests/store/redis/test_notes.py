"""Changes that nobody waits for, on each kind of server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from otpmail.errors import StoreError
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.notes import Held, Note
from store.clocks import Clock
from store.entries import entry_of, mail_of, settled
from store.redis.replicas import empty, owned, replica, until

if TYPE_CHECKING:
    from redis_server import RedisServer
    from store.redis.conftest import Start

pytestmark = pytest.mark.one_loop

HELD = Held("", 0, None, b"", has_content=True)
_REFUSALS = 2  # more than it takes to find out that a change is at fault by itself


def broken() -> bytes:
    """Fail, as a record that can't be sealed."""
    raise ValueError("can't be sealed")


async def test_a_change_that_cannot_be_made_holds_up_no_other(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A change whose octets can't be made is dropped, and those who wait for it or for others go on."""
    async with replica(redis_server, Clock(), uuid4().hex) as one:
        notes = one.mails._owned.notes
        for mail_id, octets in (("m1", bytes), ("m2", broken), ("m3", bytes)):
            notes.add(Note("defer", mail_id, HELD, octets))
        async with asyncio.timeout(20):
            for mail_id in ("m1", "m2", "m3"):
                await notes.wait_for(mail_id)
        assert not notes.waiting
    assert [getattr(record, "event", "") for record in caplog.records] == ["store-change-dropped"]


async def test_waiting_for_all_compares_no_notes(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the notes that there are now takes no longer, however many wait."""
    async with replica(redis_server, Clock(), uuid4().hex) as one:
        notes = one.mails._owned.notes
        compared: list[object] = []

        def compare(note: Note, other: object) -> bool:
            compared.append(other)
            return note is other

        monkeypatch.setattr(Note, "__eq__", compare)
        for number in range(1000):
            notes.add(Note("defer", f"m{number}", HELD))
        async with asyncio.timeout(20):
            await notes.wait_for_all()
        assert not notes.waiting
        assert compared == []


async def test_a_writer_that_ends_lets_nobody_wait(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that ends the writing is reported, the calls that wait go on, and the changes are written later."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    async with replica(redis_server, Clock(), uuid4().hex) as one:
        notes = one.mails._owned.notes
        mistake = RuntimeError()

        async def end() -> None:
            raise mistake

        with monkeypatch.context() as patch:
            patch.setattr(notes, "_write_all", end)
            notes.add(Note("defer", "m1", HELD))
            async with asyncio.timeout(20):
                await notes.wait_for("m1")
        assert reported == [mistake]
        assert notes.waiting
        async with asyncio.timeout(20):
            await notes.wait_for("m1")
        assert not notes.waiting


async def test_a_lease_that_is_refused_costs_no_change(
    start: Start,
    redis_server: RedisServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A settlement outlasts words of the server that nobody knows, where they are about the lease of its replica."""
    one = await start(lease_seconds=10.0)
    await one.accept(entry_of(mail_of("m1")), entry_of(mail_of("m2")))
    refused = 0
    recover = Lease.recover

    async def refuse(lease: Lease, name: str, epoch: str) -> None:
        nonlocal refused
        refused += 1
        if refused <= _REFUSALS:
            raise StoreError("STORE_URL: the server has words that nobody knows")
        await recover(lease, name, epoch)

    monkeypatch.setattr(Lease, "recover", refuse)
    empty(redis_server, namespace)
    del one.owner.entries["m1"]
    one.mails.settle(ended := settled(mail_of("m1")))
    await until(lambda: owned(redis_server, namespace) == {"m2"})
    other = await start()
    assert await other.mails.get("shop", "m1") == ended
    assert refused > _REFUSALS
    assert "store-change-dropped" not in [getattr(record, "event", "") for record in caplog.records]
