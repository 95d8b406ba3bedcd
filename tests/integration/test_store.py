"""A durable store over stops, kills and faults of the disk: the next process sends what was promised."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2

from calls import detail, reason
from otpmail.v1 import mail_pb2, otp_pb2
from relay import Faults
from service import Service, ServiceExitedError, relay_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay import CaughtMail, Certificates, Relay

KEYS = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
ROUNDS = int(os.environ.get("KILLS", "3"))
CALLERS = 64
WORKERS = 5
BATCH = 100
"""Mails that may settle in a hundredth of a second, after which a settlement is in the file."""


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service with its store in a file of the test."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    return relay_settings(relay, certificates, tmp_path / "token") | {"STORE_URL": url, "OTP_KEYS": KEYS}


def _request(name: str, **fields: Any) -> mail_pb2.SendMailRequest:
    given: dict[str, Any] = {
        "to": [f"{name}@example.org"],
        "subject": name,
        "text": "t",
        "wait_for": mail_pb2.WAIT_FOR_QUEUE,
    }
    return mail_pb2.SendMailRequest(**given | fields)


async def _send(service: Service, name: str, **fields: Any) -> mail_pb2.Mail:
    return (await service.mail.SendMail(_request(name, **fields))).mail


def _names(mails: list[CaughtMail]) -> list[str]:
    return [mail.recipients[0].partition("@")[0] for mail in mails]


def _message_ids(mails: list[CaughtMail]) -> dict[str, set[bytes]]:
    ids: dict[str, set[bytes]] = {}
    for name, mail in zip(_names(mails), mails, strict=True):
        ids.setdefault(name, set()).update(re.findall(rb"(?im)^Message-ID: *(.*)\r$", mail.content))
    return ids


async def test_a_stop_keeps_guaranteed_mails(state: dict[str, Any], relay: Relay) -> None:
    """A stop keeps guaranteed mails and says how many; the next start sends them, urgent first, as the same mails."""
    down = state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.2, "WORKERS": 1}
    async with Service(**down) as service:
        await service.wait_for_log("relay-down")
        sent = [
            (await service.mail.SendMail(_request(f"n{number}", request_id=f"r{number}"))).mail for number in range(4)
        ]
        await service.mail.SendMail(_request("bulk", priority=mail_pb2.PRIORITY_BULK))
        await service.mail.SendMail(_request("urgent", priority=mail_pb2.PRIORITY_URGENT))
        assert await service.stop() == 0
        last = service.log[-1]
        assert (last["event"], last["level"], last["kept"], last["lost"]) == ("stopped", "info", 6, 0)
    relay.faults = Faults(chunking=False, pipelining=False)
    async with Service(**state | {"WORKERS": 1}) as service:
        again = (await service.mail.SendMail(_request("n0", request_id="r0"))).mail
        assert (again.id, again.message_id) == (sent[0].id, sent[0].message_id)
        arrived = await relay.wait_for_mails(6)
        assert _names(arrived) == ["urgent", "n0", "n1", "n2", "n3", "bulk"]
        for mail in sent:
            states = [state.state async for state in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail.id))]
            assert states[-1] == mail_pb2.Mail.STATE_RELAYED
        assert await service.stop() == 0
    async with Service(**state) as service:
        found = await service.mail.GetMail(mail_pb2.GetMailRequest(request_id="r3"))
        assert (found.id, found.state) == (sent[3].id, mail_pb2.Mail.STATE_RELAYED)
        again = (await service.mail.SendMail(_request("n0", request_id="r0"))).mail
        assert (again.id, again.state) == (sent[0].id, mail_pb2.Mail.STATE_RELAYED)
        assert await service.stop() == 0
    assert len(relay.mails) == 6


async def test_a_mail_is_cancelled_after_a_restart(state: dict[str, Any], relay: Relay) -> None:
    """A mail that an earlier process accepted can be watched and cancelled, and is not sent then, not even later."""
    down = state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.1}
    async with Service(**down) as service:
        mail = (await service.mail.SendMail(_request("ada", request_id="r1"))).mail
        assert await service.stop() == 0
    async with Service(**down) as service:
        await service.wait_for_log("mails-taken-up")
        watched: Any = service.mail.WatchMail(mail_pb2.WatchMailRequest(request_id="r1"))
        assert (await watched.read()).state == mail_pb2.Mail.STATE_QUEUED
        cancelled = await service.mail.CancelMail(mail_pb2.CancelMailRequest(id=mail.id))
        assert cancelled.state == mail_pb2.Mail.STATE_CANCELLED
        assert (await watched.read()).state == mail_pb2.Mail.STATE_CANCELLED
        assert await service.stop() == 0
    async with Service(**state) as service:
        await service.wait_until_serving()
        assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))).state == mail_pb2.Mail.STATE_CANCELLED
        await service.mail.SendMail(_request("bob"))
        assert _names(await relay.wait_for_mails(1)) == ["bob"]
        assert await service.stop() == 0


async def test_codes_live_through_a_kill(state: dict[str, Any], relay: Relay) -> None:
    """A code and its failed attempts are there after a kill, and a code that was used stays used."""
    service = Service(**state, OTP_RETURN_CODE=True, OTP_RESEND_SECONDS=0)
    async with service:
        await service.wait_until_serving()
        sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
        wrong = "0" * 6 if sent.otp_code != "0" * 6 else "1" * 6
        check = otp_pb2.ValidateCodeRequest(email="ada@example.org", code=wrong)
        assert (await service.otp.ValidateCode(check)).attempts_left == 4
        await service.kill()
    async with Service(**state) as service:
        assert (await service.otp.ValidateCode(check)).attempts_left == 3
        check.code = sent.otp_code
        assert (await service.otp.ValidateCode(check)).result == otp_pb2.ValidateCodeResponse.RESULT_VALID
        await service.kill()
    async with Service(**state) as service:
        assert (await service.otp.ValidateCode(check)).result == otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
        assert await service.stop() == 0
    assert len(relay.mails) == 1


async def _load(service: Service, numbers: Iterator[int], promised: dict[str, str]) -> None:
    """Send guaranteed mails until the service is gone, and keep the name and the id of each that it promised."""

    async def caller() -> None:
        for number in numbers:
            name = f"p{number}"
            try:
                promised[name] = (await service.mail.SendMail(_request(name))).mail.id
            except grpc.aio.AioRpcError:
                return

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


@pytest.mark.relay(delay=0.005)
async def test_kills_under_load(state: dict[str, Any], relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    """A kill -9 under 64 callers loses no promised mail; second copies are few, and have the same Message-ID."""
    promised: dict[str, str] = {}
    numbers = iter(range(1_000_000))
    windows = set()
    for _ in range(ROUNDS):
        async with Service(**state, WORKERS=WORKERS) as service:
            await service.wait_until_serving()
            windows.add(int(str((await service.wait_for_log("relay-up"))["window"])))
            load = asyncio.create_task(_load(service, numbers, promised))
            target = len(promised) + random.randint(300, 600)
            async with asyncio.timeout(60):
                while len(promised) < target:  # noqa: ASYNC110  each answer counts
                    await asyncio.sleep(0.001)
            await service.kill()
            await load
    async with Service(**state, WORKERS=WORKERS) as service:
        async with asyncio.timeout(60):
            while not promised.keys() <= set(_names(relay.mails)):  # noqa: ASYNC110  as above
                await asyncio.sleep(0.05)
        assert await service.stop() == 0
    copies = Counter(_names(relay.mails))
    extra = sum(copies.values()) - len(copies)
    bound = ROUNDS * (WORKERS * max(windows) + BATCH)
    with capsys.disabled():
        print(  # noqa: T201  the figures are what it is run for
            f"\n{ROUNDS} kills, {len(promised)} promised, {len(promised.keys() - copies.keys())} lost, "
            f"{extra} second copies of at most {bound}, {len(copies.keys() - promised.keys())} sent unpromised"
        )
    assert promised.keys() <= copies.keys()
    assert extra <= bound
    assert all(len(ids) == 1 for ids in _message_ids(relay.mails).values())


async def test_dev_ignores_the_store(tmp_path: Path) -> None:
    """`otpmail dev` says that it ignores STORE_URL, and leaves the file alone: it would catch the mails in it."""
    path = tmp_path / "store.db"
    async with Service(command="dev", STORE_URL=f"sqlite:{path}") as service:
        assert "STORE_URL" in await service.wait_for_output("it ignores your")
        await service.mail.SendMail(_request("ada"))
        assert not path.exists()
        assert await service.stop() == 0


# Faults at the start.


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("directory", "is a directory; STORE_URL names a file"),
        ("text", "is not a SQLite database"),
        ("locked", "is in use by another process; one file serves one otpmail"),
    ],
)
async def test_a_store_that_can_not_be_opened(state: dict[str, Any], tmp_path: Path, spoil: str, words: str) -> None:
    """The start ends with exit code 5 and one line that opens with the setting and says what to do."""
    path = tmp_path / "store.db"
    if spoil == "directory":
        path.mkdir()
    elif spoil == "text":
        path.write_text("a text\n" * 1000)
    async with Service(**state) if spoil == "locked" else nullcontext():
        other = Service(**state)
        with pytest.raises(ServiceExitedError) as caught:
            async with other:
                pass
    assert caught.value.exit_code == 5
    assert [line for line in other.output if line.startswith(f"STORE_URL: {path} {words}")] == other.output[-1:]


# A full disk.


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


async def test_a_full_disk(state: dict[str, Any], relay: Relay, small_disk: Path) -> None:
    """A full disk refuses new mails, UNAVAILABLE with RetryInfo, and loses none; with room all goes on by itself."""
    state |= {"STORE_URL": f"sqlite:{small_disk / 'store.db'}"}
    relay.faults = Faults(final_reply="451 4.3.0 later")
    promised = []
    async with Service(**state) as service:
        await service.wait_until_serving()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012  the one that does not fit
            for number in range(100):
                await service.mail.SendMail(_request(f"p{number}", text="x" * 500_000))
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
        await service.mail.SendMail(_request("after"))
        await relay.wait_for_mails(len(promised) + 1)
        assert await service.stop() == 0
    async with Service(**state) as service:
        await service.wait_until_serving()
        await service.mail.SendMail(_request("last"))
        await relay.wait_for_mails(len(promised) + 2)
        assert await service.stop() == 0
    assert Counter(_names(relay.mails)) == Counter([*promised, "after", "last"])
