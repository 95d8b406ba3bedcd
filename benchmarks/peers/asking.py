"""The settings of a service that asks who calls, and counts for all limits. None of them refuses a benchmark."""

from hashlib import sha256
from pathlib import Path

_CALLERS = 100  # in the file; one of them calls
_MOST = 10_000_000  # what a limit may be at the most

LIMITS: dict[str, object] = {
    "OTP_SENDS_PER_CALLER_HOUR": _MOST,
    "OTP_SENDS_PER_SERVICE_HOUR": _MOST,
    "OTP_FAILURES_PER_CALLER_HOUR": _MOST,
}
"""The limits over many addresses that are not set unless an operator sets them."""


def write_callers(path: Path) -> str:
    """Write a CALLERS_FILE whose callers have limits of their own, and return the token of one of them."""
    tokens = [f"otpmail_{sha256(b'%d' % number).hexdigest()}" for number in range(_CALLERS)]
    path.write_text(
        "".join(
            f'[callers.c{number}]\ntokens = ["{sha256(token.encode()).hexdigest()}"]\n'
            'methods = ["mail.MailService", "otpmail.v1.MailService", "otpmail.v1.OtpService"]\n'
            f"codes_per_hour = {_MOST}\nmails_per_hour = {_MOST}\nmails_per_day = {_MOST}\n"
            for number, token in enumerate(tokens)
        ),
        encoding="utf-8",
    )
    return tokens[-1]
