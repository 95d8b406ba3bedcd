"""The service's wall clock is set an hour forward and back, while it runs and between two processes."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from faults.wall import WallService
from guaranteed import names, redis_settings, send, sqlite_settings
from otpmail.v1 import otp_pb2
from redis_server import RedisServer
from relay import Faults
from service import relay_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from relay import Certificates, Relay

HOUR = 3600.0
LIFE = 600.0
PASSED = 30_000.0
SHORT_LIFE = 4  # where the clock is the server's
VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID


@pytest.fixture
def start(relay: Relay, certificates: Certificates, tmp_path: Path) -> Callable[[float], WallService]:
    """Return what makes a service whose wall clock is so many seconds off, with one store on disk for all of them.

    Its codes are returned.
    """
    settings: dict[str, Any] = relay_settings(relay, certificates, tmp_path / "token")
    settings |= sqlite_settings(tmp_path / "store.db")
    settings |= {"OTP_LIFESPAN_SECONDS": LIFE, "OTP_RETURN_CODE": True, "OTP_RESEND_SECONDS": 0}

    def make(offset: float) -> WallService:
        service = WallService(tmp_path, **settings)
        service.set_wall(offset)
        return service

    return make


async def _issue(service: WallService, name: str) -> otp_pb2.ValidateCodeRequest:
    """Have a code mailed, and return the check with it."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=f"{name}@example.org"))
    return otp_pb2.ValidateCodeRequest(email=f"{name}@example.org", code=sent.otp_code)


async def _outlives(service: WallService, check: otp_pb2.ValidateCodeRequest) -> bool:
    """Whether a code is still good a second after its life, which is to pass now."""
    service.let_pass(LIFE + 1)
    return (await service.otp.ValidateCode(check)).result == VALID


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_jump_while_it_runs(
    start: Callable[[float], WallService], relay: Relay, show: Callable[[str], None], jump: float
) -> None:
    """A jump neither ends a code early nor keeps it alive, and a deferred mail is not sent before its time."""
    async with start(0.0) as service:
        await service.wait_until_serving()
        relay.faults = Faults(final_reply="451 4.3.0 later", times=1)
        began = time.monotonic()
        await send(service, "deferred")
        wanted = float(str((await service.wait_for_log("mail-deferred"))["retry_after"]))
        early, late = await _issue(service, "ada"), await _issue(service, "bob")
        service.set_wall(jump)
        await relay.wait_for_mails(3)
        took = time.monotonic() - began
        service.let_pass(LIFE / 2)
        assert (await service.otp.ValidateCode(early)).result == VALID
        assert not await _outlives(service, late)
        assert await service.stop() == 0
    show(f"a code was good then, none a second after its life; a mail due in {wanted} s came after {took:.1f}")
    assert set(names(relay.mails)) == {"deferred", "ada", "bob"}
    assert took >= wanted


@pytest.mark.parametrize("store", ["memory:", "sqlite:"])
async def test_a_clock_that_was_set_forward_is_approached(
    relay: Relay, certificates: Certificates, tmp_path: Path, show: Callable[[str], None], store: str
) -> None:
    """A service that runs on does not stay behind a wall clock that was set: it gains a hundredth of the time."""
    settings: dict[str, Any] = relay_settings(relay, certificates, tmp_path / "token")
    settings |= {"OTP_LIFESPAN_SECONDS": LIFE, "OTP_CLEANUP_SECONDS": 1}
    settings |= sqlite_settings(tmp_path / "store.db") if store == "sqlite:" else {}
    async with WallService(tmp_path, **settings) as service:
        await service.wait_until_serving()
        assert abs(await _behind(service, "first", 0.0)) < 5
        service.set_wall(HOUR)
        service.let_pass(PASSED)
        async with asyncio.timeout(30):
            for number in count():
                behind = await _behind(service, f"p{number}", HOUR + PASSED)
                if behind < HOUR - PASSED / 200:
                    break
        assert await service.stop() == 0
    show(f"{behind:.0f} s behind a clock that was set {HOUR:.0f} s forward, {PASSED:.0f} s later")
    assert behind == pytest.approx(HOUR - PASSED / 100, abs=5)


async def _behind(service: WallService, name: str, wall: float) -> float:
    """Return how far the times in an answer are behind a wall clock that is so far ahead of ours."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=f"{name}@example.org"))
    return time.time() + wall + LIFE - sent.expire_time.ToMicroseconds() / 1e6


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_jump_between_two_processes(
    start: Callable[[float], WallService], show: Callable[[str], None], jump: float
) -> None:
    """No code lives longer for a clock that is set while no process runs, nor for one that is set right again."""
    outlived = 0
    for before, after in ((0.0, jump), (jump, 0.0)):
        async with start(before) as service:
            await service.wait_until_serving()
            check = await _issue(service, f"a{before:.0f}")
            await service.kill()
        async with start(after) as service:
            await service.wait_until_serving()
            outlived += await _outlives(service, check)
            await service.kill()
    show(f"{outlived} of 2 codes were good a second after their life")
    assert not outlived


async def test_replicas_whose_clocks_differ(
    relay: Relay, certificates: Certificates, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """No code lives longer on Redis where the clocks of two replicas are hours apart."""
    outlived = 0
    with RedisServer() as server:
        settings = relay_settings(relay, certificates, tmp_path / "token") | redis_settings(server)
        settings |= {"OTP_LIFESPAN_SECONDS": SHORT_LIFE, "OTP_RETURN_CODE": True, "OTP_RESEND_SECONDS": 0}
        ahead, behind = [WallService(_folder(tmp_path, name), **settings) for name in ("ahead", "behind")]
        ahead.set_wall(HOUR)
        behind.set_wall(-HOUR)
        async with ahead, behind:
            for one, other in ((ahead, behind), (behind, ahead)):
                await one.wait_until_serving()
                await other.wait_until_serving()
                good = await _issue(one, f"good-{one.pid}")
                assert (await other.otp.ValidateCode(good)).result == VALID
                one.set_wall(0.0)
                check, issued = await _issue(one, f"late-{one.pid}"), time.monotonic()
                await asyncio.sleep(issued + SHORT_LIFE + 1 - time.monotonic())
                outlived += (await other.otp.ValidateCode(check)).result == VALID
    show(f"{outlived} of 2 codes were good a second after their life")
    assert not outlived


def _folder(path: Path, name: str) -> Path:
    folder = path / name
    folder.mkdir()
    return folder
