"""Makes the `Call` of each call: who calls, from where, and until when the caller waits."""

from dataclasses import replace
from time import monotonic
from typing import Any

from otpmail.callers import ANONYMOUS, CALLER, TRACE, Call, Caller
from otpmail.errors import Unauthenticated

Context = Any
"""A call as its door has it: gRPC's own context, or one of `web` with the same methods.

`peer`, `time_remaining` and `auth_context` tell of the caller. `read` returns octets, anything else at the end. `write`
takes a response of a stream, and `abort` a code, a message and trailers.
"""

Ended = type[Exception] | tuple[type[Exception], ...]
"""The errors with which doors end a running call: it has its status, or its caller has gone."""


class End:
    """Stands for the end of the requests of a call, where octets would be one."""

    def __len__(self) -> int:
        return 0


class CallEnded(Exception):
    """A call of a door of ours has its status, or its caller has gone. Nothing but that door may catch it."""


_ANONYMOUS = ANONYMOUS.name


def call_from(context: Context) -> Call:
    """Return the call that a handler's context belongs to. Connections of anonymous callers take turns."""
    left = context.time_remaining()
    peer = context.peer()
    caller = CALLER.get()
    source = peer if caller.name == _ANONYMOUS else ""
    return Call(caller, peer, None if left is None else monotonic() + left, source, TRACE.get())


def by_caller(call: Call, caller: Caller) -> Call:
    """Return a running call with what its caller may do now. Raises Unauthenticated where it is another's by now."""
    if caller is call.caller:
        return call
    if caller.name != call.caller.name:
        raise Unauthenticated(f"this stream was of {call.caller.name}, and is another caller's now")
    return replace(call, caller=caller)


def stream_call_from(context: Context, number: int) -> Call:
    """Return the call of a stream of mails; `number` is its own.

    Streams of anonymous callers take turns, also those of one connection.
    """
    call = call_from(context)
    return replace(call, source=f"{call.peer} stream {number}") if call.source else call
