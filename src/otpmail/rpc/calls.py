"""Makes the `Call` of each gRPC call: who calls, from where, and until when the caller waits."""

from dataclasses import replace
from time import time
from typing import Any

from otpmail.callers import ANONYMOUS, TRACE, Call

Context = Any  # generated stubs name a context type that exists for the type checker alone


def call_from(context: Context) -> Call:
    """Return the call that a handler's context belongs to. Callers are anonymous, so connections take turns."""
    left = context.time_remaining()
    peer = context.peer()
    return Call(ANONYMOUS, peer, None if left is None else time() + left, peer, TRACE.get())


def stream_call_from(context: Context, number: int) -> Call:
    """Return the call of a stream of mails; `number` is its own: streams take turns, also those of one connection."""
    call = call_from(context)
    return replace(call, source=f"{call.peer} stream {number}")
