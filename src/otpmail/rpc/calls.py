"""Makes the `Call` of each gRPC call: who calls, from where, and until when the caller waits."""

from time import time
from typing import Any

from otpmail.callers import ANONYMOUS, Call

Context = Any  # generated stubs name a context type that exists for the type checker alone


def call_from(context: Context) -> Call:
    """Return the call that a handler's context belongs to."""
    left = context.time_remaining()
    return Call(ANONYMOUS, context.peer(), None if left is None else time() + left)
