"""A store on disk through kills and full disks, with a relay and callers that notice each loss and each copy."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2

from calls import detail, reason
from faults.queues import CountingRelay, fill, processor_seconds, resident
from guaranteed import Callers, Copies, message_ids, names, send, sqlite_settings
from otpmail.v1 import mail_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from relay import Certificates, Relay

WORKERS = 5
BATCH = 100
"""Mails that may settle in a hundredth of a second, after which a settlement is in the file."""


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service with its store in a file of the test."""
    return relay_settings(relay, certificates, tmp_path / "token") | sqlite_settings(tmp_path / "store.db")


@pytest.mark.relay(delay=0.005)
async def test_kills_under_load(
    state: dict[str, Any], relay: Relay, show: Callable[[str], None], *, full: bool
) -> None:
    """A kill -9 under 64 callers loses no promised mail; second copies are few, and have the same Message-ID."""
    callers, kills, windows = Callers(), 20 if full else 3, set()
    for _ in range(kills):
        async with Service(**state, WORKERS=WORKERS) as service:
            await service.wait_until_serving()
            windows.add(int(str((await service.wait_for_log("relay-up"))["window"])))
            load = asyncio.create_task(callers.run(service))
            await callers.wait_for_promises(len(callers.promised) + random.randint(300, 600))
            await service.kill()
            await load
    async with Service(**state, WORKERS=WORKERS) as service:
        async with asyncio.timeout(60):
            while not callers.promised.keys() <= set(names(relay.mails)):  # noqa: ASYNC110  each mail counts
                await asyncio.sleep(0.05)
        assert await service.stop() == 0
    copies, bound = Copies(callers.promised, relay.mails), kills * (WORKERS * max(windows) + BATCH)
    show(f"{kills} kills, {copies}, at most {bound} copies are allowed")
    assert not copies.lost
    assert copies.extra <= bound
    assert all(len(ids) == 1 for ids in message_ids(relay.mails).values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 48 MiB; skipped where that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    mounted = (
        mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _forbid_writing(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


@pytest.mark.parametrize("exists", [True, False], ids=["file", "directory"])
async def test_a_place_that_can_only_be_read(state: dict[str, Any], small_disk: Path, *, exists: bool) -> None:
    """A file or a directory that can't be written ends the start with exit code 5 and one line, which names it."""
    path = small_disk / "store.db"
    state |= sqlite_settings(path)
    if exists:
        async with Service(**state) as service:
            assert await service.stop() == 0
    _forbid_writing(small_disk)
    before = path.read_bytes() if exists else None
    other = Service(**state)
    (line,) = await other.refused(5)
    assert line.startswith(f"STORE_URL: {path} can't be written")
    assert len(other.output) == 1
    assert (path.read_bytes() if path.exists() else None) == before


async def test_a_full_disk(state: dict[str, Any], relay: Relay, small_disk: Path, show: Callable[[str], None]) -> None:
    """A full disk refuses new mails, UNAVAILABLE with RetryInfo, and loses none; with room all goes on by itself."""
    state |= {"STORE_URL": f"sqlite:{small_disk / 'store.db'}"}
    relay.faults = Faults(final_reply="451 4.3.0 later")
    promised: list[str] = []
    async with Service(**state) as service:
        await service.wait_until_serving()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012  the one that does not fit
            for number in range(100):
                await send(service, f"p{number}", text="x" * 500_000)
                promised.append(f"p{number}")
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert detail(caught.value, RetryInfo).retry_delay.ToTimedelta().total_seconds() >= 1
        assert len(promised) > 10
        await service.wait_for_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        assert "nearly full" in str((await service.wait_for_log("store-away"))["message"])
        (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))  # now it is full
        relay.faults = Faults()
        await relay.wait_for_mails(len(promised), timeout=30)
        (small_disk / "filler").unlink()
        await service.wait_until_serving()
        await send(service, "after")
        await relay.wait_for_mails(len(promised) + 1)
        assert await service.stop() == 0
    async with Service(**state) as service:
        await service.wait_until_serving()
        await send(service, "last")
        await relay.wait_for_mails(len(promised) + 2)
        assert await service.stop() == 0
    copies = Copies([*promised, "after", "last"], relay.mails)
    show(f"{copies}, nothing was refused but what did not fit")
    assert (copies.lost, copies.extra) == (set(), 0)


_NEAR = 5_000
"""Mails that are in memory at most, since workers need them soon, and those that came before the relay was down."""


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that can be frozen; skipped where that is not allowed."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    if shutil.which("fsfreeze") is None:
        pytest.skip("no file system can be frozen here")
    for command, *options in (("mkfs.ext4", "-q", str(image)), ("mount", "-o", "loop", str(image), str(disk))):
        program = shutil.which(command)
        if program is None or subprocess.run([program, *options], check=False, capture_output=True).returncode:
            pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["fsfreeze", "-u", disk], check=False, capture_output=True)  # it fails on one that was thawed
    subprocess.run(["umount", disk], check=True)


def _freeze(disk: Path, option: str) -> None:
    subprocess.run(["fsfreeze", option, disk], check=True)


async def test_a_disk_that_does_not_answer(
    state: dict[str, Any], relay: Relay, own_disk: Path, show: Callable[[str], None]
) -> None:
    """While the disk hangs health is NOT_SERVING and calls are refused at once; then all goes on, and none is lost."""
    state |= sqlite_settings(own_disk / "store.db")
    promised = ["before", "after"]
    async with Service(**state) as service:
        await service.wait_until_serving()
        await send(service, "before")
        _freeze(own_disk, "-f")
        began = time.monotonic()
        stuck = asyncio.ensure_future(send(service, "stuck"))
        await service.wait_for_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        noticed, began = time.monotonic() - began, time.monotonic()
        for number in range(100):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(service, f"refused-{number}")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert detail(caught.value, RetryInfo).retry_delay.ToTimedelta().total_seconds() >= 1
        refused = time.monotonic() - began
        _freeze(own_disk, "-u")
        await service.wait_until_serving()
        await stuck
        await send(service, "after")
        await relay.wait_for_mails(3)
        assert len(service.logged("store-away")) == len(service.logged("store-back")) == 1
        assert await service.stop() == 0
    copies = Copies([*promised, "stuck"], relay.mails)
    show(f"{copies}, noticed after {noticed:.1f} s, 100 calls refused in {refused:.1f} s")
    assert (copies.lost, copies.extra) == (set(), 0)


@pytest.fixture
async def counting() -> AsyncIterator[CountingRelay]:
    """Start a relay that keeps names alone."""
    async with CountingRelay() as relay:
        yield relay


async def test_a_long_queue(
    state: dict[str, Any],
    counting: CountingRelay,
    certificates: Certificates,
    tmp_path: Path,
    show: Callable[[str], None],
    *,
    full: bool,
) -> None:
    """A long queue takes half a KiB of memory a mail and 1.5 s of a start, and all are sent, urgent first."""
    mails, urgent = (200_000 if full else 8_000), 50
    state |= relay_settings(counting, certificates, tmp_path / "token") | {
        "QUEUE_SIZE": 4 * (_NEAR + mails),
        "MEMORY_MAX_MB": 256,
    }
    await counting.close()  # nobody listens there until it starts again
    async with Service(**state, WORKERS=WORKERS) as service:
        await service.wait_for_log("relay-down")
        empty = processor_seconds(service)
        assert await fill(service, [f"w{number}" for number in range(_NEAR)]) == _NEAR
        before = resident(service)
        assert await fill(service, [f"n{number}" for number in range(mails)]) == mails
        filled = (resident(service) - before) / mails
        for number in range(urgent):
            await send(service, f"u{number}", priority=mail_pb2.PRIORITY_URGENT)
        await service.kill()
    async with Service(**state, WORKERS=WORKERS) as service:
        idle = resident(service)
        taken_up = await service.wait_for_log("mails-taken-up")
        assert taken_up["mails"] == _NEAR + mails + urgent
        found = (resident(service) - idle) / mails
        await service.kill()
    await counting.start()
    async with Service(**state, WORKERS=WORKERS) as service:
        await service.wait_until_serving()
        took = processor_seconds(service) - empty
        window = int(str((await service.wait_for_log("relay-up"))["window"]))
        await counting.wait_for_names(_NEAR + mails + urgent, timeout=600 if full else 120)
        assert await service.stop() == 0
    first = max(counting.names.index(f"u{number}") for number in range(urgent))
    show(
        f"{mails} mails, {filled:.0f} octets each while they wait and {found:.0f} after a start, "
        f"{took:.2f} s of a processor more to start than the {empty:.2f} of the first start, "
        f"the last of {urgent} urgent ones was number {first + 1}"
    )
    assert sorted(counting.names) == sorted(
        [f"w{n}" for n in range(_NEAR)] + [f"n{n}" for n in range(mails)] + [f"u{n}" for n in range(urgent)]
    )
    assert first < urgent + WORKERS * window
    if full:
        assert filled <= 512
        assert found <= 512
        assert took <= 1.5


@pytest.mark.parametrize("request_ids", [False, True], ids=["without-request-ids", "with-request-ids"])
async def test_mails_in_and_out(
    state: dict[str, Any],
    counting: CountingRelay,
    certificates: Certificates,
    tmp_path: Path,
    show: Callable[[str], None],
    *,
    request_ids: bool,
    full: bool,
) -> None:
    """The file stays small whatever has passed through it, and its log too."""
    mails, log, largest = (100_000 if full else 2_000), tmp_path / "store.db-wal", 0
    async with Service(**state | relay_settings(counting, certificates, tmp_path / "token")) as service:
        await service.wait_until_serving()
        numbers = iter(range(mails))

        async def caller() -> None:
            nonlocal largest
            for number in numbers:
                await send(service, f"p{number}", request_id=f"r{number}" if request_ids else "")
                largest = max(largest, log.stat().st_size)

        await asyncio.gather(*(caller() for _ in range(64)))
        await counting.wait_for_names(mails, timeout=60)
        assert await service.stop() == 0
    size = (tmp_path / "store.db").stat().st_size
    show(f"{mails} mails, the file has {size / (1 << 20):.1f} MiB at the end, its log had {largest / (1 << 20):.1f}")
    assert largest <= 64 << 20
    assert size <= (16 << 20 if full else 1 << 20)
