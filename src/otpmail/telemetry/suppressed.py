"""The lines of the log about suppressed addresses."""

import logging
from datetime import UTC, datetime

from otpmail.counts import counted
from otpmail.events import (
    AddressEvent,
    AddressSuppressed,
    RecipientSuppressed,
    SuppressionLifted,
    SuppressionsEvicted,
    SuppressionsFull,
)
from otpmail.suppression import Suppression, SuppressionScope
from otpmail.telemetry.addresses import Addresses
from otpmail.telemetry.mails import Line

_WHAT = {SuppressionScope.ALL: "", SuppressionScope.BULK: " for bulk"}


def line_about_address(event: AddressEvent, addresses: Addresses) -> tuple[str, Line]:
    """Return the stable name of such an event, and its line."""
    if isinstance(event, SuppressionsFull):
        text = f"no room to suppress a further address of {event.caller}: {event.count} are known (SUPPRESSIONS_MAX)"
        level = logging.DEBUG if event.repeated else logging.WARNING
        return "suppressions-full", Line(level, text, {"caller": event.caller, "count": event.count})
    if isinstance(event, SuppressionsEvicted):
        lost, whose = counted(event.count, "suppression"), event.other or "another caller"
        text = f"no room: {lost} of {whose}, which has most, gave way to one of {event.caller} (SUPPRESSIONS_MAX)"
        level = logging.DEBUG if event.repeated else logging.WARNING
        return "suppressions-evicted", Line(level, text, {"caller": event.caller, "other": event.other})
    suppression, address = event.suppression, addresses.show(event.address)
    said = addresses.within(suppression.reason)
    fields: dict[str, object] = {
        "mail": event.mail_id,
        "caller": event.caller,
        "address": address,
        "scope": suppression.scope.value,
        "until": _utc(suppression),
        "said": said,
    }
    match event:
        case RecipientSuppressed(mail_id):
            text = f"mail {mail_id}: nothing sent to {address}, suppressed until {_utc(suppression)}: {said}"
            return "recipient-suppressed", Line(logging.WARNING, text, fields)
        case AddressSuppressed():
            text = f"address {address} is suppressed{_WHAT[suppression.scope]} until {_utc(suppression)}: {said}"
            return "address-suppressed", Line(logging.WARNING, text, fields)
        case SuppressionLifted():
            text = f"address {address} is no longer suppressed{_WHAT[suppression.scope]}"
            return "suppression-lifted", Line(logging.INFO, text, fields)


def _utc(suppression: Suppression) -> str:
    return datetime.fromtimestamp(suppression.until, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
