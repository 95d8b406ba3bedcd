"""The limits over many addresses that a mail with a code counts for: of a block of end users, of a caller, in all."""

import hashlib

from otpmail.callers import Caller
from otpmail.settings import OtpSettings
from otpmail.store.challenges import Quota


class Quotas:
    """The limits as they are set. `are_usual`: each mail counts for some, also without a `client_ip`."""

    def __init__(self, settings: OtpSettings) -> None:
        self._settings = settings
        self._shadows = settings.limits_in_shadow
        caps = settings.sends_per_caller_hour, settings.sends_per_service_hour
        self.are_usual = any(cap is not None for cap in caps)

    def __repr__(self) -> str:
        return f"<Quotas {'' if self.are_usual else 'of blocks alone'}>"

    def of(self, caller: Caller, block: str) -> tuple[Quota, ...]:
        """Return the limits of a mail for a caller, and for the block of an end user, if that is known.

        A caller learns nothing of others: a block has a limit for each caller.
        """
        settings = self._settings
        found = []
        if block:
            key = _key(f"block\0{caller.name}\0{block}")
            found.append(Quota("block", key, settings.sends_per_block_hour, "block" in self._shadows))
        if settings.sends_per_caller_hour is not None:
            key = _key(f"caller\0{caller.name}")
            found.append(Quota("caller", key, settings.sends_per_caller_hour, "caller" in self._shadows, warns=True))
        if settings.sends_per_service_hour is not None:
            most = settings.sends_per_service_hour
            found.append(Quota("service", _key("service"), most, "service" in self._shadows, warns=True))
        return tuple(found)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
