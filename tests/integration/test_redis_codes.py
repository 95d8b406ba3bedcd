"""Codes on two replicas with Sentinels and with a cluster: sessions, devices, guesses, limits, and a failover."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from redis.crc import key_slot

from calls import quota_setting
from guaranteed import KEYS
from otpmail.v1 import address_pb2, otp_pb2
from redis_layouts import Cluster, WatchedServers
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from relay import Certificates, Relay

_NAMESPACE = "codes"
_SECONDS = 60.0  # generous: the machine may be busy
_FAILURES = 4
_IP = "2001:db8::1"
_ADA, _EVE, _TOM = "ada@example.org", "eve@example.org", "tom@example.org"
_LONGEST = f"{'l' * 64}@{'d' * 63}.{'e' * 63}.{'f' * 57}.org"
_ODD = (_LONGEST, "{x}@example.org", "}{@example.org", "zoë+a@bücher.example")
_Result = otp_pb2.ValidateCodeResponse
_VALID, _WRONG = _Result.RESULT_VALID, _Result.RESULT_WRONG_CODE
_NONE, _SPENT = _Result.RESULT_NO_LIVE_CODE, _Result.RESULT_TOO_MANY_ATTEMPTS


class _Replicas:
    """Calls the replicas in turn, and each of them again while its store is down.

    A check is repeated with its request id, so that one whose answer was lost costs no attempt.
    """

    def __init__(self, replicas: Sequence[Service], name: str = "call") -> None:
        self._turns = cycle(replicas)
        self._name = name
        self._number = 0

    async def send(self, email: str = _ADA, **fields: Any) -> otp_pb2.SendCodeResponse:
        """Mail a code, and return the answer, which has the code."""
        request = otp_pb2.SendCodeRequest(email=email, request_id=self._new_id(), **fields)
        sent: otp_pb2.SendCodeResponse = await self._call(lambda one: one.otp.SendCode(request))
        return sent

    async def check(self, code: str, email: str = _ADA, *, request_id: str = "", **fields: Any) -> _Result:
        """Check a code."""
        known = request_id or self._new_id()
        request = otp_pb2.ValidateCodeRequest(email=email, code=code, request_id=known, **fields)
        checked: _Result = await self._call(lambda one: one.otp.ValidateCode(request))
        return checked

    async def revoke(self, email: str) -> None:
        """End the live code of an address."""
        await self._call(lambda one: one.otp.RevokeCode(otp_pb2.RevokeCodeRequest(email=email)))

    async def known(self, email: str) -> address_pb2.GetAddressResponse:
        """Return what is kept of an address."""
        request = address_pb2.GetAddressRequest(email=email)
        answer: address_pb2.GetAddressResponse = await self._call(lambda one: one.address_service.GetAddress(request))
        return answer

    async def spent(self, email: str) -> dict[str, int]:
        """Return what strangers have spent at an address, by the settings."""
        return {budget.name: budget.spent for budget in (await self.known(email)).budgets}

    async def suppress(self, email: str) -> None:
        """Report that mail to an address bounced."""
        outcome = address_pb2.ReportDeliveryRequest.OUTCOME_BOUNCED
        request = address_pb2.ReportDeliveryRequest(email=email, outcome=outcome)
        await self._call(lambda one: one.address_service.ReportDelivery(request))

    async def release(self, email: str) -> None:
        """Lift all that keeps mail to an address back."""
        request = address_pb2.ReleaseAddressRequest(email=email, suppression=True, budgets=True)
        await self._call(lambda one: one.address_service.ReleaseAddress(request))

    async def forget(self, email: str) -> None:
        """Erase what is kept of an address."""
        await self._call(lambda one: one.address_service.ForgetAddress(address_pb2.ForgetAddressRequest(email=email)))

    def _new_id(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    async def _call(self, call: Callable[[Service], Awaitable[object]]) -> Any:
        replica = next(self._turns)
        async with asyncio.timeout(_SECONDS):
            while True:
                try:
                    return await call(replica)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                await asyncio.sleep(0.1)


@pytest.fixture(params=["sentinel", "cluster"])
def layout(request: pytest.FixtureRequest) -> Iterator[WatchedServers | Cluster]:
    """Start each layout in turn."""
    sentinel = request.param == "sentinel"
    slot = key_slot(_NAMESPACE.encode())
    servers = WatchedServers(gone_seconds=5) if sentinel else Cluster(slot, gone_seconds=5)
    with servers:
        yield servers


@pytest.mark.timeout(300)
async def test_codes_through_a_failover(
    layout: WatchedServers | Cluster, relay: Relay, certificates: Certificates, tmp_path: Path
) -> None:
    """All that is kept of an address is one record for both replicas, and a failover forgets nothing that was spent."""
    settings = relay_settings(relay, certificates, tmp_path / "token") | {
        "STORE_URL": layout.url,
        "STORE_NAMESPACE": _NAMESPACE,
        "OTP_KEYS": KEYS,
        "OTP_RETURN_CODE": True,
        "OTP_RESEND_SECONDS": 0,
        "OTP_FAILURES_PER_HOUR": _FAILURES,
        "OTP_FAILURES_PER_CALLER_HOUR": 1000,
        "OTP_SENDS_PER_BLOCK_HOUR": 2,
        "OTP_SENDS_PER_CALLER_HOUR": 1000,
        "OTP_SENDS_PER_SERVICE_HOUR": 1000,
    }
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(Service(**settings)) for _ in range(2)]
        for service in services:
            await service.wait_until_serving()
        replicas = _Replicas(services)
        used = await _use_sessions(replicas)
        await _use_addresses(replicas)
        await _use_up_a_block(replicas)
        short, long = await _guess(replicas)
        before = await replicas.spent(_EVE)
        if isinstance(layout, Cluster):
            errors = layout.master.command("INFO", "errorstats")
            assert not {"CROSSSLOT", "MOVED"} & set(errors.replace(":", "_").split("_"))

        layout.wait_until_replicated()
        layout.master.kill()
        for service in services:
            await service.wait_for_log("store-away")
            await service.wait_for_log("store-back", timeout=_SECONDS)
        assert await replicas.spent(_EVE) == before
        fresh = await stack.enter_async_context(Service(**settings))  # the two know by themselves what was used
        assert (await _Replicas([fresh], "fresh").check(used, session="a")).result == _NONE
        assert (await replicas.check(short, _EVE, session="short")).result == _SPENT
        assert (await replicas.check(long, _EVE)).result == _VALID
        assert (await replicas.send(_EVE, session="more")).code_length == 12
        await _is_used_up(replicas)
        await replicas.forget(_EVE)
        assert await replicas.spent(_EVE) == {}


async def _use_sessions(replicas: _Replicas) -> str:
    """Sign in by sessions and a device, also from a fourth session; returns a code that is used."""
    one, two = await replicas.send(session="a"), await replicas.send(session="b")
    assert one.challenge_id != two.challenge_id
    again = await replicas.send(session="a")
    assert (again.challenge_id, again.otp_code) == (one.challenge_id, one.otp_code)
    assert (await replicas.check(_other(two.otp_code), session="b")).result == _WRONG
    valid = await replicas.check(one.otp_code, session="a", request_id="first")
    assert valid.result == _VALID
    assert await replicas.check(one.otp_code, session="a", request_id="first") == valid
    assert (await replicas.check(one.otp_code, session="a")).result == _NONE

    token = valid.device_token
    mine = await replicas.send(session="mine", device_token=token)
    further = {name: (await replicas.send(session=name)).otp_code for name in ("c", "d")}
    assert (await replicas.check(two.otp_code, session="b")).result == _NONE
    for name, code in further.items():
        assert (await replicas.check(code, session=name)).result == _VALID
    assert (await replicas.check(mine.otp_code, session="mine", device_token=token)).result == _VALID
    return one.otp_code


async def _use_addresses(replicas: _Replicas) -> None:
    """Revoke, count for a mailbox, suppress, release and forget, also with odd addresses."""
    code = (await replicas.send(_TOM)).otp_code
    await replicas.revoke(_TOM)
    assert (await replicas.check(code, _TOM)).result == _NONE
    await replicas.send("tom+a@example.org")
    assert (await replicas.spent(_TOM))["OTP_SENDS_PER_HOUR"] == 2
    await replicas.forget("tom+a@example.org")
    assert (await replicas.spent(_TOM))["OTP_SENDS_PER_HOUR"] == 1
    for email in _ODD:
        await replicas.suppress(email)
        assert (await replicas.known(email)).HasField("suppression")
        await replicas.release(email)
        assert not (await replicas.known(email)).HasField("suppression")
    for email in _ODD:
        code = (await replicas.send(email)).otp_code
        assert (await replicas.check(code, email)).result == _VALID
        await replicas.forget(email)
        assert await replicas.spent(email) == {}


async def _use_up_a_block(replicas: _Replicas) -> None:
    sent = await replicas.send("b0@example.org", client_ip=_IP)
    assert sent.challenge_id
    with suppress(grpc.aio.AioRpcError):  # a repeated call may have counted twice
        await replicas.send("b1@example.org", client_ip=_IP)
    await _is_used_up(replicas)


async def _is_used_up(replicas: _Replicas) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await replicas.send("b9@example.org", client_ip=_IP)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert quota_setting(caught.value) == "OTP_SENDS_PER_BLOCK_HOUR"


async def _guess(replicas: _Replicas) -> tuple[str, str]:
    """Use up the failures of strangers at an address; returns a short code of theirs and a long one, both live."""
    token = (await replicas.check((await replicas.send(_EVE)).otp_code, _EVE)).device_token
    short = (await replicas.send(_EVE, session="short")).otp_code
    for _ in range(_FAILURES):
        assert (await replicas.check(_other(short), _EVE, session="short")).result == _WRONG
    assert (await replicas.check(short, _EVE, session="short")).result == _SPENT
    mine = (await replicas.send(_EVE, device_token=token)).otp_code
    assert (await replicas.check(mine, _EVE, device_token=token)).result == _VALID
    long = await replicas.send(_EVE)
    assert (long.code_length, long.code_is_numeric) == (12, False)
    assert (await replicas.check("ABCD-EFGH-JKLM", _EVE)).result == _WRONG
    return short, long.otp_code


def _other(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}d}"
