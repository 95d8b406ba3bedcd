"""An earlier version and the present one as replicas on one Redis server, as they are during a rollout."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from calls import parsed
from guaranteed import names, request, send
from otpmail.v1 import mail_pb2, otp_pb2
from redis_server import RedisServer
from relay import Faults
from service import Service

if TYPE_CHECKING:
    from relay import Relay

EARLIER = Path(__file__).parent / "earlier/layout-1.tar.xz"
LATER = "451 4.3.0 later"
VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
NO_LIVE_CODE = otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE


class EarlierService(Service):
    """A process of the version whose sources are in `sources`."""

    def __init__(self, sources: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self._sources = sources

    def _environment(self, home: str) -> dict[str, str]:
        return super()._environment(home) | {"PYTHONPATH": str(self._sources)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the earlier version."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER) as packed:
        packed.extractall(folder, filter="data")
    return folder / "src"


async def _send_code(service: Service, name: str, **fields: Any) -> otp_pb2.ValidateCodeRequest:
    """Have a code mailed, and return the check with it."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=f"{name}@example.org", **fields))
    return otp_pb2.ValidateCodeRequest(email=f"{name}@example.org", code=sent.otp_code)


async def test_two_versions_share_codes_and_request_ids(
    state: dict[str, Any], sources: Path, redis: RedisServer, relay: Relay
) -> None:
    """The later version checks the codes of the earlier one, and each knows request ids of the other.

    The earlier one knows no codes of the later, whose records have other names; the later one goes on alone by itself.
    """
    async with EarlierService(sources, **state) as earlier, Service(**state) as later:
        for service in (earlier, later):
            await service.wait_until_serving()
        for first, second in ((earlier, later), (later, earlier)):
            name = "a" if first is earlier else "b"
            check = await _send_code(first, name)
            wrong = otp_pb2.ValidateCodeRequest(email=check.email, code="0" * 6 if check.code != "0" * 6 else "1" * 6)
            knows = later if first is earlier else first
            assert [(await knows.otp.ValidateCode(wrong)).attempts_left for _ in range(2)] == [4, 3]
            assert (await earlier.otp.ValidateCode(check)).result == NO_LIVE_CODE
            assert (await later.otp.ValidateCode(check)).result == VALID
            for service in (earlier, later):
                assert (await service.otp.ValidateCode(check)).result == NO_LIVE_CODE
            kept = await send(first, f"mail-{name}", request_id=name)
            assert (await send(second, f"mail-{name}", request_id=name)).id == kept.id
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(second, "another", request_id=name)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            asked = otp_pb2.SendCodeRequest(email=f"{name}-again@example.org", request_id=f"code-{name}")
            codes = [(await one.otp.SendCode(asked)).otp_code for one in (first, second)]
            assert len(set(codes)) == 1
        left = await _send_code(earlier, "left")
        assert await earlier.stop() == 0
        await _wait_for_layout(redis, state, b"2")
        assert (await later.otp.ValidateCode(left)).result == VALID
        check = await _send_code(later, "alone")
        assert (await later.otp.ValidateCode(check)).result == VALID
        assert (await send(later, "mail-a", request_id="a")).state == mail_pb2.Mail.STATE_RELAYED
        assert await later.stop() == 0
    assert sorted(name for name in names(relay.mails) if name.startswith("mail")) == ["mail-a", "mail-b"]


@pytest.mark.parametrize("survivor", ["earlier", "later"])
async def test_a_version_takes_over_from_the_other(
    state: dict[str, Any], sources: Path, relay: Relay, survivor: str
) -> None:
    """The mails of a killed replica are sent by one of the other version; the later one has their codes too."""
    both = EarlierService(sources, **state), Service(**state)
    killed, lives = both if survivor == "later" else both[::-1]
    async with both[0], both[1]:  # the earlier version is there first, as in a rollout
        for service in both:
            await service.wait_until_serving()
        relay.faults = Faults(final_reply=LATER)
        sent = await send(killed, "ada", request_id="r1")
        check = await _send_code(killed, "code", wait_for=mail_pb2.WAIT_FOR_QUEUE)
        await killed.wait_for_log("mail-deferred", count=2)
        await killed.kill()
        relay.faults = Faults()
        arrived = await relay.wait_for_mails(2)
        assert sorted(names(arrived)) == ["ada", "code"]
        ids = {parsed(mail.content)["message-id"] for mail in arrived}
        assert sent.message_id in ids
        assert (await lives.otp.ValidateCode(check)).result == (VALID if survivor == "later" else NO_LIVE_CODE)
        assert (await lives.mail.SendMail(request("ada", request_id="r1"))).mail.id == sent.id
        assert await lives.stop() == 0


async def _wait_for_layout(redis: RedisServer, state: dict[str, Any], layout: bytes) -> None:
    """Wait until the server has what earlier versions can't read."""
    key = f"{{{state['STORE_NAMESPACE']}}}:layout"
    async with asyncio.timeout(30):
        while layout.decode() not in redis.command("GET", key).split("\r\n"):  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.05)
