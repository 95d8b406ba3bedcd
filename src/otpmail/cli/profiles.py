"""The lines of `otpmail caller` about profiles and test addresses. No line has a fixed code."""

import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from otpmail.callers import Caller, Profile
from otpmail.counts import counted
from otpmail.model import DAY, LETTERS, LONG

if TYPE_CHECKING:
    from otpmail.settings.callers import CallersFile

_NEAR_DAYS = 14


def profiles(by_purpose: Mapping[str, Profile]) -> Iterator[str]:
    """Yield a line for each profile, with the terms that it sets."""
    for purpose, profile in by_purpose.items():
        yield f"profile {purpose}: {', '.join(_terms(profile)) or 'as the settings say'}"


def ends_of_test_addresses(file: "CallersFile", now: float) -> Iterator[tuple[str, bool]]:
    """Yield a line for each test address, and whether it is worth a warning: its end is near, or past."""
    for caller, purpose, profile in _of_all(file):
        yield from _of_profile(caller, purpose, profile, now)


def relays_of_profiles(file: "CallersFile") -> list[str]:
    """Return the relays that profiles name, each once."""
    return list(dict.fromkeys(profile.relay for _, _, profile in _of_all(file) if profile.relay))


def doubts_about_mode(path: Path, file: "CallersFile") -> Iterator[str]:
    """Yield a line where other accounts of this machine may change the file, or read the codes of test addresses."""
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        yield f"{path}: every account of this machine may change it, and add callers; chmod o-w {path}"
    if mode & stat.S_IROTH and any(profile.test_addresses for _, _, profile in _of_all(file)):
        yield f"{path}: every account of this machine may read the codes of its test addresses; chmod o-r {path}"


def _of_all(file: "CallersFile") -> Iterator[tuple[Caller, str, Profile]]:
    """Yield each profile with its caller and its purpose."""
    callers = [entry.caller for entry in file.entries]
    if file.callers.anonymous is not None:
        callers.append(file.callers.anonymous)
    for caller in callers:
        for purpose, profile in (caller.may.profiles or {}).items():
            yield caller, purpose, profile


def _of_profile(caller: Caller, purpose: str, profile: Profile, now: float) -> Iterator[tuple[str, bool]]:
    for address, fixed in profile.test_addresses.items():
        days = int((fixed.until - now) // DAY)
        last = datetime.fromtimestamp(fixed.until - DAY, UTC).date()
        line = f"test address {address} of {caller.name}, purpose {purpose}: good until {last} (UTC)"
        if fixed.until <= now:
            line += "; it has ended, so remove it"
        elif days < _NEAR_DAYS:
            line += f"; it ends in {counted(days + 1, 'day')}"
        yield line, fixed.until - now < _NEAR_DAYS * DAY


def _terms(profile: Profile) -> Iterator[str]:
    length = profile.length or 0
    length_words = counted(length & ~LETTERS, "digit" if length < LONG else "letter") if length else None
    sender, tested = profile.sender, len(profile.test_addresses)
    words: tuple[tuple[str, object], ...] = (
        ("{}", length_words),
        ("life {:g} s", profile.lifespan),
        ("{} attempts at a code", profile.attempts),
        ("resend {:g} s", profile.resend),
        ("from {}", None if sender is None else sender.spec),
        ("templates {}", profile.templates),
        ("product {}", profile.product and (profile.product.name or "changed")),
        ("relay {}", profile.relay or None),
        ("{} sends an hour", profile.sends_per_hour),
        ("{} sends a day", profile.sends_per_day),
        ("{} failures an hour", profile.failures_per_hour),
        ("{} failures a day", profile.failures_per_day),
        ("{} test addresses", tested or None),
    )
    yield from (form.format(value) for form, value in words if value is not None)
