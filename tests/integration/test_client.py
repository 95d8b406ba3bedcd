"""Both clients against the service: `otpmail dev`, and a relay that a test makes fail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otpmail import client as errors
from otpmail.client import Client, Outcome, OutgoingMail, State, SyncClient, WaitFor
from ports import HOST, ReservedPort
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay import Certificates, Relay

_ROOT = Path(__file__).parents[2]
_ADA = "ada@example.org"


@pytest.fixture
async def dev() -> AsyncIterator[Service]:
    """`otpmail dev`, which catches every mail."""
    async with Service(command="dev") as service:
        yield service


async def test_codes_and_mails(dev: Service) -> None:
    """A code is sent, checked once and revoked; a mail is sent, looked up, watched and listed."""
    async with Client(dev.address) as client:
        sent = await client.send_code(_ADA, "reset", labels={"a": "b"})
        assert (sent.mail.state, sent.mail.labels, sent.code_length) == (State.RELAYED, {"a": "b"}, 6)
        with pytest.raises(errors.NoLiveCode):
            await client.check_code(_ADA, sent.otp_code)
        assert await client.check_code(_ADA, sent.otp_code, "reset", challenge_id=sent.challenge_id)
        await client.send_code(_ADA)
        await client.revoke_code(_ADA)
        mail = await client.send_mail([_ADA, "bob@example.org"], "Hi", "text", wait_for=WaitFor.QUEUE, ttl=60.5)
        *_, last = [state async for state in client.watch_mail(mail.id)]
        assert last.state is State.RELAYED
        assert await client.get_mail(request_id=mail.request_id) == last
        assert mail.id in [found.id async for found in client.list_mails(State.RELAYED)]
        with pytest.raises(errors.WrongState):
            await client.cancel_mail(mail.id)
        with pytest.raises(errors.NotFound):
            await client.get_mail("absent")


async def test_addresses(dev: Service) -> None:
    """All that is kept of an address is shown, lifted and erased."""
    async with Client(dev.address) as client:
        await client.report_delivery(_ADA, Outcome.BOUNCED, detail="no such user")
        found = await client.get_address(_ADA)
        assert found.suppression is not None
        assert "no such user" in found.suppression.reason
        with pytest.raises(errors.Suppressed) as caught:
            await client.send_code(_ADA)
        assert caught.value.until == found.suppression.until
        await client.release_address(_ADA, suppression=True)
        await client.send_code(_ADA)
        assert (await client.get_address(_ADA)).budgets
        await client.forget_address(_ADA)
        assert not (await client.get_address(_ADA)).budgets


async def test_mails_may_come_late(dev: Service) -> None:
    """An asynchronous iterable of mails is sent as it comes: the result of one mail may bring forth the next."""
    come: asyncio.Queue[OutgoingMail | None] = asyncio.Queue()

    async def outgoing() -> AsyncIterator[OutgoingMail]:
        """Yield what is put into the queue."""
        while (mail := await come.get()) is not None:
            yield mail

    async with Client(dev.address) as client:
        come.put_nowait(OutgoingMail(to=_ADA, request_id="a"))
        results = client.send_mails(outgoing())
        assert (await anext(results)).request_id == "a"
        come.put_nowait(OutgoingMail(to=_ADA, request_id="b"))
        come.put_nowait(None)
        assert [result.request_id async for result in results] == ["b"]


async def test_many_mails(dev: Service) -> None:
    """Both clients send more mails over a stream than fit a batch, and each has its result."""
    outgoing = [OutgoingMail(to=_ADA, subject=str(number), text="x") for number in range(250)]
    async with Client(dev.address) as client:
        assert len([each async for each in client.send_mails(outgoing) if each.error is None]) == 250

    def blocking() -> int:
        """Send them by the client that blocks."""
        with SyncClient(dev.address) as client:
            return len([each for each in client.send_mails(outgoing) if each.error is None])

    assert await asyncio.to_thread(blocking) == 250


async def test_the_relays_words(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """`Refused` has the relay's reply, and `RelayDown` comes where the relay can't be reached."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    relay.faults = Faults(refuse_recipients={_ADA: "550 5.1.1 no such user"})
    async with Service(**settings) as service, Client(service.address) as client:
        with pytest.raises(errors.Refused) as refused:
            await client.send_code(_ADA)
        assert (refused.value.code, refused.value.enhanced_code, refused.value.reply) == (550, "5.1.1", "no such user")
        with pytest.raises(errors.Suppressed):
            await client.send_code(_ADA)
    async with Service(EMAIL_HOST="127.0.0.1", EMAIL_PORT=1, EMAIL_SECURITY="plain") as service:
        await service.wait_for_log("relay-down")
        async with Client(service.address, retries=errors.Retries(attempts=1)) as client:
            with pytest.raises(errors.RelayDown) as down:
                await client.send_code(_ADA)
            assert down.value.retry_after is not None


async def test_a_restart_is_not_noticed() -> None:
    """A call that comes while the service is restarted is answered by the next process."""
    with ReservedPort() as held:
        async with Client(f"{HOST}:{held.port}", retries=errors.Retries(attempts=40)) as client:
            async with Service(command="dev", PORT=held.port):
                await client.send_code(_ADA)
            call = asyncio.create_task(client.send_code(_ADA))
            async with Service(command="dev", PORT=held.port):
                assert (await call).mail.state is State.RELAYED


async def test_the_example_of_the_readme(dev: Service, tmp_path: Path) -> None:
    """The Python program on the README's page works against `otpmail dev`."""
    text = (_ROOT / "README.md").read_text("utf-8")
    (tmp_path / "example.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=os.environ | {"OTPMAIL_SERVER": dev.address, "PYTHONPATH": str(_ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "valid\n"), done.stderr
