"""Decides which addresses are suppressed, for how long, and what lifts that. Pure: times come in, records go out."""

from dataclasses import replace

from otpmail.suppression import (
    ANY_SPELLING,
    MOST_SPELLINGS,
    REMEMBERED_SECONDS,
    AddressRecord,
    Suppression,
    SuppressionScope,
)

_DAY = 86_400.0

REFUSED_SECONDS = _DAY, 7 * _DAY, 30 * _DAY
"""How long an address is suppressed the first time, the second, and each further time."""

COMPLAINED_SECONDS = 365 * _DAY
"""How long a complaint keeps bulk back: a person who has called it spam wants none of it next week either."""

_NOTHING = AddressRecord()


def refused(
    record: AddressRecord | None,
    now: float,
    reason: str,
    *,
    spelling: bytes = ANY_SPELLING,
    is_reported: bool = False,
) -> AddressRecord:
    """Return the record of an address that was refused as such. A refusal while one is in force is one with it.

    So is that of a further spelling: its end stays, or a stranger could move it with ever new ones. A refusal of any
    spelling takes its place: a relay may know only some of them.
    """
    record = record or _NOTHING
    last = record.refused
    if last is not None and last.until > now:
        if record.holds_for(spelling):
            return record
        if spelling != ANY_SPELLING:
            return replace(record, spellings=(*record.spellings, spelling)[-MOST_SPELLINGS:])
        suppression = Suppression(reason, now, now + REFUSED_SECONDS[max(record.strikes - 1, 0)])
        return AddressRecord(suppression, record.strikes, is_reported, record.complained)
    strikes = record.strikes if last is not None and last.until + REMEMBERED_SECONDS > now else 0
    suppression = Suppression(reason, now, now + REFUSED_SECONDS[min(strikes, len(REFUSED_SECONDS) - 1)])
    strikes = min(strikes + 1, len(REFUSED_SECONDS))
    spellings = () if spelling == ANY_SPELLING else (spelling,)
    return AddressRecord(suppression, strikes, is_reported, record.complained, spellings)


def complained(record: AddressRecord | None, now: float, reason: str) -> AddressRecord:
    """Return the record of an address whose owner has called a mail spam."""
    record = record or _NOTHING
    last = record.complained
    if last is not None and last.until > now:
        return record
    return replace(record, complained=Suppression(reason, now, now + COMPLAINED_SECONDS, SuppressionScope.BULK))


def delivered(record: AddressRecord | None, *, is_reported: bool = False) -> AddressRecord | None:
    """Return the record of an address that has taken a mail: what had refused it is forgotten, a complaint stays.

    A relay that accepts a mail for another server to deliver knows no better than a caller, who has reported that the
    mailbox refused one. So that refusal stays, unless the delivery `is_reported` too.
    """
    if record is None or (record.is_reported and not is_reported):
        return record
    return None if record.complained is None else AddressRecord(complained=record.complained)


def released(_: AddressRecord | None) -> None:
    """Return None: nothing is known of the address any more."""
