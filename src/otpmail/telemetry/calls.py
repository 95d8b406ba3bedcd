"""The lines of the log about callers: refused calls, limits, what they forget, full addresses, and their files."""

import logging
from dataclasses import asdict
from datetime import UTC, datetime

from otpmail.callers import ANONYMOUS
from otpmail.counts import counted
from otpmail.events import (
    AccessKept,
    AccessRenewed,
    AddressForgotten,
    AddressReleased,
    CallEvent,
    CallRefused,
    CallsRefused,
    CertificateDoubtful,
    CodesEvicted,
    ConnectionsFree,
    ConnectionsFull,
    FixedCodeUsed,
    LimitReached,
    TemplateMisspelt,
)
from otpmail.telemetry.addresses import Addresses
from otpmail.telemetry.mails import Line

_WHOLE = 100  # percent


def line_about_calls(event: CallEvent, addresses: Addresses) -> tuple[str, Line]:
    """Return the stable name of such an event, and its line."""
    match event:
        case CallRefused():
            name, line = "call-refused", _refused(event, addresses)
        case CallsRefused(method, status, reason, count):
            again = "call was" if count == 1 else "calls were"
            text = f"{count} more {again} refused: {method}: {_kind(status, reason)}"
            name, line = "calls-refused", Line(logging.INFO, text, asdict(event))
        case LimitReached():
            name, line = _limit(event)
        case CodesEvicted(caller, other, count, repeated):
            text = f"no room: {counted(count, 'record')} of {other or 'another caller'}, which has most codes, "
            level = logging.DEBUG if repeated else logging.WARNING
            fields: dict[str, object] = {"caller": caller, "other": other}
            name, line = "codes-evicted", Line(level, f"{text}gave way to one of {caller} (MEMORY_MAX_MB)", fields)
        case FixedCodeUsed(caller, purpose, address, result):
            to = addresses.show(address)
            text = f"test address {to} of the caller {caller}, purpose {purpose}: {result.lower()}"
            fields = {"caller": caller, "purpose": purpose, "to": to, "result": result}
            name, line = "test-address-used", Line(logging.INFO, text, fields)
        case ConnectionsFull(address, most):
            connections = counted(most, "connection")
            text = f"{address} has {connections} of callers, as many as it may; new ones there are closed at once"
            text = f"{text} (MAX_CONNECTIONS, ulimit -n)"
            name, line = "connections-full", Line(logging.WARNING, text, asdict(event))
        case ConnectionsFree(address):
            text = f"{address} accepts new connections of callers again"
            name, line = "connections-free", Line(logging.INFO, text, asdict(event))
        case AddressReleased() | AddressForgotten():
            name, line = _about_address(event, addresses)
        case AccessRenewed() | AccessKept() | CertificateDoubtful() | TemplateMisspelt():
            name, line = _about_files(event)
    return name, line


def _about_files(event: AccessRenewed | AccessKept | CertificateDoubtful | TemplateMisspelt) -> tuple[str, Line]:
    setting = event.setting
    match event:
        case AccessRenewed(holds=holds):
            return "reloaded", Line(logging.INFO, f"reloaded: {setting}, {holds}", {"changed": [setting]})
        case AccessKept(problem=problem):
            text = f"reload: {problem}; what it held before is kept"
            return "reload-failed", Line(logging.ERROR, text, {"setting": setting})
        case CertificateDoubtful(problem=problem):
            times = {"not_before": _time(event.not_before), "not_after": _time(event.not_after)}
            return "certificate-doubtful", Line(logging.WARNING, problem, {"setting": setting, **times})
        case TemplateMisspelt(problem=problem):
            return "template-misspelt", Line(logging.WARNING, problem, {"setting": setting})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _about_address(event: AddressReleased | AddressForgotten, addresses: Addresses) -> tuple[str, Line]:
    """Words for what a caller has lifted or erased, and of whom."""
    shown = addresses.show(event.address)
    fields: dict[str, object] = {"caller": event.caller, "address": shown}
    if isinstance(event, AddressReleased):
        said = ", ".join(event.lifted) or "nothing was spent"
        text = f"address {shown}: released by the caller {event.caller}: {said}"
        return "address-released", Line(logging.INFO, text, {**fields, "lifted": list(event.lifted)})
    text = f"address {shown}: forgotten for the caller {event.caller}, also in {counted(event.mails, 'settled mail')}"
    return "address-forgotten", Line(logging.INFO, text, {**fields, "mails": event.mails})


def _limit(event: LimitReached) -> tuple[str, Line]:
    """How near a caller has come to a limit. A refusal is logged with others too (`events.CallRefused`)."""
    limit, caller, percent = event.limit, event.caller, event.percent
    span = "a day" if limit.endswith("_day") else "an hour"
    if not percent:
        name, level, text = "limit-reached", logging.DEBUG, "refuses"
    elif percent == _WHOLE:
        name, level, text = "limit-in-shadow", logging.INFO, "is in shadow, and would refuse"
    else:
        name, level, text = "limit-near", logging.WARNING, f"{percent} % of it is used up in {span}, the last by"
    return name, Line(level, f"limit {limit}: {text} the caller {caller}", asdict(event))


def _kind(status: str, reason: str) -> str:
    """The status, with the reason where that says more."""
    return status if status == reason else f"{status} {reason}"


def _refused(event: CallRefused, addresses: Addresses) -> Line:
    said = addresses.within(event.message)
    fields: dict[str, object] = {
        "method": event.method,
        "peer": event.peer,
        "status": event.status,
        "reason": event.reason,
        "said": said,
    }
    if event.caller:
        fields["caller"] = event.caller
    whose = f" by {event.caller}" if event.caller not in {"", ANONYMOUS.name} else ""
    text = f"call refused: {event.method}{whose} from {event.peer}: {_kind(event.status, event.reason)}"
    if event.address:
        fields["address"] = shown = addresses.show(event.address)
        text += f" address={shown}"
    return Line(logging.INFO, f"{text}: {said}" if said else text, fields)
