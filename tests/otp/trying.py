"""Calls of the rules about codes, with few words."""

from dataclasses import dataclass

from otpmail.code_record import STRANGERS, CodeRecord
from otpmail.limits.rules import Windows
from otpmail.model import Challenge, Check, Sending
from otpmail.otp.policy import Policy
from otpmail.store.challenges import NO_SCOPE, Attempt, Send

POLICY = Policy(attempts=3, failures=Windows(5, 12), sends=Windows(10, 30), resend=30.0)
LIFESPAN = 120.0
DEVICE = b"a device"


@dataclass
class Typed:
    """Typed text that is the code of one challenge, or of none."""

    right: bytes | None = None
    length: int = 6

    def __post_init__(self) -> None:
        """Set which code it can be."""
        self.lengths = self.length, -1

    def matches(self, challenge: Challenge | None) -> bool:
        """Whether it is the challenge's code."""
        return challenge is not None and challenge.id == self.right

    def proofs(self, key: bytes) -> list[tuple[str, bytes]]:
        """Return nothing: the rules compare."""
        del key
        return []


def fresh(name: str, now: float = 0.0, lifespan: float = LIFESPAN) -> Challenge:
    """Return a challenge that begins now."""
    return Challenge(name.encode(), "k1", now + lifespan, length=6)


def send(
    record: CodeRecord | None,
    now: float,
    name: str = "a",
    *,
    scope: bytes = NO_SCOPE,
    device: bytes = STRANGERS,
    spaced: bool = True,
    compat: bool = False,
    policy: Policy = POLICY,
) -> tuple[CodeRecord, Sending]:
    """Ask for a code."""
    asked = Send(b"", now, fresh(name, now), spaced=spaced, scope=scope, device=device, compat=compat)
    return policy.send(record, asked)


def sent(now: float = 0.0, name: str = "a") -> CodeRecord:
    """Return the record of an address after its first code."""
    return send(None, now, name)[0]


def check(
    record: CodeRecord | None,
    now: float,
    right: bytes | None = None,
    *,
    length: int = 6,
    policy: Policy = POLICY,
    attempt: Attempt | None = None,
) -> tuple[CodeRecord | None, Check]:
    """Try the code of a challenge, or a wrong one."""
    return policy.check(record, now, Typed(right, length), attempt or Attempt())


def fail(record: CodeRecord | None, now: float, times: int, attempt: Attempt | None = None) -> CodeRecord | None:
    """Try that many wrong codes, each of which counts."""
    for _ in range(times):
        after, _ = check(record, now, attempt=attempt)
        assert after != record
        record = after
    return record
