"""One service by several processes on one port (PROCESSES): starts them, starts them again, and stops them together."""

import os

MARK = "_OTPMAIL_SUPERVISED"
"""The variable in the environment of a process that a supervisor has started."""


def is_member() -> bool:
    """Whether a supervisor has started this process."""
    return MARK in os.environ
