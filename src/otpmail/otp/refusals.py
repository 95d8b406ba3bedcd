"""The errors for limits of codes: what each says, whose limit it is, and the setting."""

from otpmail.callers import TableKey
from otpmail.errors import LimitExceeded
from otpmail.settings.otp import LIMITS, RATES

# By their names in scripts: what is said, and the setting.
_REFUSALS = {
    "failures_per_hour": ("too many wrong codes for this {whose} in an hour", "OTP_FAILURES_PER_HOUR"),
    "failures_per_day": ("too many wrong codes for this {whose} in a day", "OTP_FAILURES_PER_DAY"),
    "attempts": ("the code of this address has no attempts left", "OTP_ATTEMPTS"),
    "sends_per_hour": ("too many codes were mailed for this {whose} in an hour", "OTP_SENDS_PER_HOUR"),
    "sends_per_day": ("too many codes were mailed for this {whose} in a day", "OTP_SENDS_PER_DAY"),
    "resend": ("a code was mailed to this address just now", "OTP_RESEND_SECONDS"),
    "block": ("too many codes were mailed for this address's client_ip in an hour", "OTP_SENDS_PER_BLOCK_HOUR"),
    "caller": ("this caller has had too many codes mailed in an hour", "OTP_SENDS_PER_CALLER_HOUR"),
    "service": ("this service has mailed too many codes in an hour", "OTP_SENDS_PER_SERVICE_HOUR"),
    "mails_per_hour": ("this caller has sent too many mails in an hour", "mails_per_hour"),
    "mails_per_day": ("this caller has sent too many mails in a day", "mails_per_day"),
    "guesses": ("this caller has had too many wrong codes in an hour", "OTP_FAILURES_PER_CALLER_HOUR"),
    "slots": ("too many codes of this address are live", "live_codes"),
}

_WHOSE = {
    "block": "block",
    "caller": "caller",
    "service": "service",
    "guesses": "caller",
    **dict.fromkeys(RATES, "caller"),
}
"""Whose the limits over many addresses are."""


def refusal(name: str, retry_after: float, *, device: bool = False, named: TableKey | None = None) -> LimitExceeded:
    """Return the error for a limit by its name in scripts. `device`: it is that of a device, and not of an address.

    `named` is the key of CALLERS_FILE that sets the limit, where it is no setting.
    """
    said, setting = _REFUSALS[name]
    if named is not None:
        said, setting = f"{said} ({named.place})", named.name
    whose = _WHOSE.get(name) or ("device" if device else "address")
    limit = "address" if name.startswith("sends_per_") else name if name in LIMITS else ""
    return LimitExceeded(whose, said.replace("{whose}", whose), retry_after=retry_after, setting=setting, limit=limit)
