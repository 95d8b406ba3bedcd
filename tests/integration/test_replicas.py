"""Two replicas of the service on one Redis server: each answers for the mails of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from guaranteed import names, redis_settings, send
from otpmail.v1 import mail_pb2
from redis_server import RedisServer
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay import Certificates, Relay

LATER = "451 4.3.0 later"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Start a server that the tests of this file share."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path, server: RedisServer) -> dict[str, Any]:
    """Return the settings of a replica; those of one test have a namespace of their own."""
    return relay_settings(relay, certificates, tmp_path / "token") | redis_settings(server)


async def test_a_mail_is_taken_up_after_a_restart(state: dict[str, Any], relay: Relay) -> None:
    """A guaranteed mail that a stop left is sent by the next process, with the same Message-ID."""
    relay.faults = Faults(final_reply=LATER)
    async with Service(**state, DRAIN_SECONDS=0.1) as service:
        await service.wait_until_serving()
        mail = await send(service, "ada")
        await service.wait_for_log("mail-deferred")
        assert await service.stop() == 0
        assert service.logged("stopped")[0]["kept"] == 1
    relay.faults = Faults()
    async with Service(**state) as service:
        await relay.wait_for_mails(1)
        got = await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))
        assert (got.message_id, got.state) == (mail.message_id, mail_pb2.Mail.STATE_RELAYED)
        assert await service.stop() == 0
    assert names(relay.mails) == ["ada"]
