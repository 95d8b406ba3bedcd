"""Looks whether a foreign target can be attacked at all, and says what to change where it can't."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc.aio

from attacks.targets import somebody

if TYPE_CHECKING:
    from attacks.targets import Target

_CONNECT_SECONDS = 10.0
_START_SECONDS = 90.0
_POLL_SECONDS = 0.5
_ADVICE = {
    grpc.StatusCode.UNAUTHENTICATED: "set OTPMAIL_TOKEN to the token of a caller",
    grpc.StatusCode.PERMISSION_DENIED: "the caller of OTPMAIL_TOKEN must be allowed SendCode and all other methods",
    grpc.StatusCode.UNIMPLEMENTED: "it does not speak this contract; --contract takes v1 or original",
}


class Unusable(Exception):
    """The target can't be attacked; the message is for the person who has started the tests."""


async def wait_until_usable(target: Target) -> None:
    """Return once every replica answers, and a code that it mails reaches the relay of the tests, if there is one.

    The target may have looked for its relay before that was there, and look again later. Raises Unusable.
    """
    for address in target.system.addresses:
        await _connect(address)
    for channel in target.channels:
        await _speak(target, channel)
    await _mail(target)


async def _connect(address: str) -> None:
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        message = f"--target {address}: no answer within {_CONNECT_SECONDS:g} s"
        raise Unusable(message) from None
    except OSError as error:
        message = f"--target {address}: no service answers there ({error.strerror or error})"
        raise Unusable(message) from None
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _speak(target: Target, channel: grpc.aio.Channel) -> None:
    try:
        await asyncio.wait_for(channel.channel_ready(), _CONNECT_SECONDS)
    except TimeoutError:
        over = "TLS, by OTPMAIL_CA_FILE" if target.over_tls else "plain text; if it wants TLS, set OTPMAIL_CA_FILE"
        names = ", ".join(target.system.addresses)
        message = f"--target {names}: takes connections, but speaks no gRPC over {over}"
        raise Unusable(message) from None


async def _mail(target: Target) -> None:
    """Have each replica mail a code, one after the other, and see that it comes to the relay."""
    give_up = time.monotonic() + _START_SECONDS
    last, in_a_row = "it refuses to mail a code", 0
    while time.monotonic() < give_up:
        email = somebody()
        try:
            answered = await target.send_code(email)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise Unusable(_refusal(target, error)) from None
            last, answered = f"UNAVAILABLE: {error.details()}", None
        if answered is not None:
            await _look(target, email)
            in_a_row += 1
            if in_a_row == len(target.channels):
                return
            continue
        in_a_row = 0
        await asyncio.sleep(_POLL_SECONDS)
    message = f"the target mails no code, after {_START_SECONDS:g} s: {last}"
    raise Unusable(message)


def _refusal(target: Target, error: grpc.aio.AioRpcError) -> str:
    words = f"the target refuses SendCode of --contract {target.contract}: {error.code().name}: {error.details()}"
    advice = _ADVICE.get(error.code())
    return f"{words}; {advice}" if advice else words


async def _look(target: Target, email: str) -> None:
    """Find the code of this address in what the relay has caught."""
    if target.system.relay is None:
        return
    try:
        mail = await target.mail_for(email, 0)
    except TimeoutError:
        message = "the target says that it mails a code, but none reaches --relay-listen; have it mail there"
        raise Unusable(message) from None
    if not target.system.codes_in(mail):
        pattern = target.system.code_pattern.pattern
        message = f"--code-pattern finds no code in the mails of the target: {pattern}"
        raise Unusable(message)
