"""The log: a line for each event, as text for people or as JSON for machines.

No line holds a code, a password, a token or a mail's content. Which settled mails have a line, LOG_MAILS says.
"""

import logging
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict, replace
from types import TracebackType
from typing import Literal

from otpmail.callers import NO_TRACE, Trace
from otpmail.counts import mails
from otpmail.events import (
    ALL_EVENTS,
    AddressEvent,
    CallEvent,
    CallRefused,
    CodeChecked,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    Event,
    FixedCodeUsed,
    HeloRefused,
    LimitReached,
    MailAccepted,
    MailDeferred,
    MailSettled,
    RelayDown,
    RelayIdle,
    RelayUp,
    SignInWanted,
    SuppressionsEvicted,
    SuppressionsFull,
)
from otpmail.model import MailState
from otpmail.telemetry.addresses import Addresses, AddressForm
from otpmail.telemetry.calls import line_about_calls
from otpmail.telemetry.formats import JsonFormatter, TextFormatter
from otpmail.telemetry.learned import learned
from otpmail.telemetry.mails import LoggedMails, MailLines
from otpmail.telemetry.suppressed import line_about_address
from otpmail.telemetry.trace import TraceFilter
from otpmail.telemetry.writer import BackgroundWriter

log = logging.getLogger("otpmail")
LEVELS = ("debug", "info", "warning", "error")
"""The values of LOG_LEVEL; the first shows most."""

_FLUSH_SECONDS = 1.0
_SETTING = re.compile(r"\b(?:EMAIL(?:_[A-Z_]+)?|APP_PASSWORD(?:_FILE)?)\b")
_RELAYED = MailState.RELAYED  # naming a member takes its time
_LAST_EVENTS = frozenset({"stopped", "stopped-at-once"})
_ALL_BUT_DEBUG = ALL_EVENTS - {MailAccepted, CodeChecked, ConnectionOpened, ConnectionClosed}


class LogHandler(logging.Handler):
    """Formats records, and leaves it to a thread to write them, so that no caller waits for a reader of the log."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.writer = BackgroundWriter(fd, self._dropped)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record as a line; for one that can't be formatted, a line that says where it came from."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  whatever a library's record raises
            text = f"{record.name}, {record.pathname}:{record.lineno}: a line can't be formatted: {error!r}"
            line = self.format(logging.makeLogRecord({"levelno": logging.ERROR, "levelname": "ERROR", "msg": text}))
        urgent = record.levelno >= logging.ERROR or getattr(record, "event", "") in _LAST_EVENTS
        self.writer.write(_encoded(line), urgent=urgent)

    def refuse(self, problem: str) -> None:
        """Write why the service can't start: as a line of the log in JSON, and alone in text, as a person wants it.

        Like every line of the log it is safe from a full pipe. `problem` opens with the setting to change.
        """
        if not isinstance(self.formatter, JsonFormatter):
            self.writer.write(_encoded(problem))
            return
        fields = {"setting": problem.partition(":")[0]}
        record = {"levelno": logging.ERROR, "levelname": "ERROR", "msg": problem, "event": "refused", "fields": fields}
        self.emit(logging.makeLogRecord(record))

    def pass_on(self, lines: Iterable[bytes]) -> None:
        """Queue lines that another process has made, each with its line feed; callable from any thread."""
        self.acquire()  # the writer has one caller at a time
        try:
            for line in lines:
                self.writer.write(line)
        finally:
            self.release()

    def flush(self) -> None:
        """Wait for the lines so far to be written, but no longer than a moment. `logging` calls it at exit."""
        self.writer.flush(_FLUSH_SECONDS)

    def _dropped(self, count: int) -> bytes:
        lines = "1 line of the log was" if count == 1 else f"{count} lines of the log were"
        record = logging.makeLogRecord(
            {
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": f"{lines} dropped, since they could not be written in time",
                "event": "log-dropped",
                "fields": {"dropped": count},
            }
        )
        return _encoded(self.format(record))


def set_up(log_format: Literal["text", "json"], level: str, *, fd: int = 2, process: int | None = None) -> LogHandler:
    """Send the log of the whole process to a file descriptor: ours from `level` on, the libraries' from warnings on.

    Warnings of Python and exceptions that nothing catches, in any thread, are lines of the log too. `process` is the
    number of this process among several.
    """
    handler = LogHandler(fd)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(process))
    handler.addFilter(TraceFilter(in_message=log_format == "text"))
    # No line shows these, and a record takes 0.5 us longer with them ("Optimization" in Python's logging guide).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda failed: _log_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)
    sys.unraisablehook = lambda failed: _log_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Log our events from `level` on."""
    log.setLevel(level.upper())


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    log.critical("an error that nothing caught", exc_info=(kind, error or kind(), traceback), extra={"event": "error"})


def _encoded(line: str) -> bytes:
    return f"{line}\n".encode("utf-8", "backslashreplace")


def log_event(level: int, event: str, message: str, *, trace: Trace | None = None, **fields: object) -> None:
    """Log `message`. `event` is its stable name; `fields` are for machines, and are shown in JSON only.

    `trace` are the ids of the call that it is about, by default the one in whose task it is logged.
    """
    if log.isEnabledFor(level):
        # Not by `log.log`, which looks through the stack for a file and line that no line of ours shows, 2 us a code.
        record = logging.LogRecord(log.name, level, "", 0, message, None, None)
        record.event, record.fields, record.trace = event, fields, trace
        log.handle(record)


class LogObserver:
    """Logs events, and counts mails for the last line of the log. `relays` is the number of configured relays.

    `mails` are the settled mails that get a line (LOG_MAILS), `addresses` is how lines show addresses (LOG_ADDRESSES).
    """

    def __init__(self, relays: int = 1, *, mails: LoggedMails = "codes", addresses: AddressForm = "masked") -> None:
        self._addresses = Addresses(addresses)
        self._mails = MailLines(mails, self._addresses)
        self.refresh()
        self.relayed = 0
        self.failed = 0
        self._relays = relays
        self._down: set[str] = set()
        self._once_up: set[str] = set()

    def __repr__(self) -> str:
        return f"<LogObserver {self.relayed} relayed, {self.failed} failed>"

    def refresh(self) -> None:
        """Ask for the events that make a line at the level that is set now."""
        self._debug = log.isEnabledFor(logging.DEBUG)
        # Every mail brings a MailAccepted, which would make no line at other levels.
        self.event_types = ALL_EVENTS if self._debug else _ALL_BUT_DEBUG

    def notify(self, event: Event) -> None:
        """Log the event, if its level is on."""
        match event:
            case MailSettled():
                self._settled(event)
            case MailDeferred(mail, retry_after, reply, trace):
                said = self._addresses.within(reply)
                text = f"mail {mail.id}: deferred, next attempt in {retry_after:.0f} s: {said}"
                log_event(
                    logging.INFO, "mail-deferred", text, trace=trace, mail=mail.id, retry_after=round(retry_after, 3)
                )
            case MailAccepted(mail, trace):
                log_event(logging.DEBUG, "mail-accepted", f"mail {mail.id}: accepted", trace=trace, mail=mail.id)
            case CodeChecked(result):
                log_event(logging.DEBUG, "code-checked", f"code checked: {result}", result=result)
            case HeloRefused() | SignInWanted():
                _log_wrong_setting(replace(event, reply=self._addresses.within(event.reply)))
            case RelayDown(relay):
                self._down.add(relay)
                self._about_relay(event, all_down=len(self._down) == self._relays, never_up=relay not in self._once_up)
            case _ if isinstance(event, AddressEvent | CallEvent):
                self._about_callers(event)
            case RelayUp(relay) | RelayIdle(relay):
                self._down.discard(relay)
                self._once_up.add(relay)
                self._about_relay(event)
            case _:
                self._about_relay(event)

    def _about_relay(self, event: Event, *, all_down: bool = False, never_up: bool = False) -> None:
        """Log what happens to a relay. An error may name the mailbox that signs in, or quote one."""
        if isinstance(event, RelayDown | DialFailed):
            event = replace(event, error=self._addresses.within(event.error))
        elif isinstance(event, ConnectionClosed):
            event = replace(event, cause=self._addresses.within(event.cause))
        _log_relay(event, all_down=all_down, never_up=never_up)

    def _about_callers(self, event: AddressEvent | CallEvent) -> None:
        """Log what a caller's addresses have met where failed mails have a line too, and all about calls."""
        trace: Trace | None = NO_TRACE
        if isinstance(event, CallEvent):
            name, (level, text, fields) = line_about_calls(event, self._addresses)
            # The trace of the call in whose task it is, but for a line about many calls.
            trace = None if isinstance(event, CallRefused | FixedCodeUsed | LimitReached) else NO_TRACE
        else:
            name, (level, text, fields) = line_about_address(event, self._addresses)
            if not isinstance(event, SuppressionsFull | SuppressionsEvicted):
                trace = event.trace
                level = level if self._mails.of_failed else logging.DEBUG
        log_event(level, name, text, trace=trace, **fields)

    def _settled(self, event: MailSettled) -> None:
        mail, lines = event.mail, self._mails
        if (state := mail.state) is _RELAYED:
            self.relayed += 1
            has_line = lines.of_all if mail.issued is None else lines.of_codes
        else:
            self.failed += state is not MailState.CANCELLED
            has_line = lines.of_failed
        if has_line or self._debug:
            level, text, fields = lines.line(event)
            level = level if has_line else logging.DEBUG
            log_event(level, "mail-settled", text, trace=event.trace, **fields)


def _log_relay(event: Event, *, all_down: bool = False, never_up: bool = False) -> None:
    line: tuple[int, str, str] | None
    match event:
        case RelayUp(relay, mode, window, address):
            line = logging.INFO, "relay-up", f"{relay} is up{_at(relay, address)}: {_capacity(mode, window)}"
        case RelayDown(relay, error, wait):
            effect = "is down, no mail can be sent" if all_down else "is down"
            # more likely a setting than an outage; some errors say which
            advice = "; otpmail check says what to change" if never_up and not _SETTING.search(error) else ""
            line = logging.ERROR, "relay-down", f"{relay} {effect}, next dial in {wait:.1f} s: {error}{advice}"
        case RelayIdle(relay):
            line = logging.INFO, "relay-left", f"{relay} is not needed now; its connections are closed"
        case DialFailed(relay, error, wait, repeated):
            level = logging.DEBUG if repeated else logging.INFO
            line = level, "dial-failed", f"{relay}: dial failed, next dial in {wait:.1f} s: {error}"
        case ConnectionOpened(relay, mode, window, address):
            text = f"{relay}: connection opened{_at(relay, address)}: {_capacity(mode, window)}"
            line = logging.DEBUG, "connection-opened", text
        case ConnectionClosed(relay, cause, sent):
            line = logging.DEBUG, "connection-closed", f"{relay}: connection closed after {mails(sent)}: {cause}"
        case _:
            line = learned(event)
    if line is None:
        return
    level, name, text = line
    fields = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(event).items()}
    log_event(level, name, f"relay {text}", trace=NO_TRACE, **fields)


def _at(relay: str, address: str) -> str:
    """Name the IP address, unless the relay is named by it."""
    return "" if not address or relay.startswith((f"{address}:", f"[{address}]:")) else f" at {address}"


def _capacity(mode: str, window: int) -> str:
    return f"{mode} mode, at most {mails(window)} in flight"


def _log_wrong_setting(event: HeloRefused | SignInWanted) -> None:
    """Log what a relay refuses because of a setting."""
    if isinstance(event, HeloRefused):
        name = "helo-refused"
        text = "a relay refuses the name that EHLO gives it; set EMAIL_HELO to a host name that it knows"
    else:
        name = "sign-in-wanted"
        text = "a relay takes no mail without a sign-in or TLS; look at EMAIL, APP_PASSWORD and EMAIL_SECURITY"
    log_event(logging.ERROR, name, f"{text}: {event.reply}", trace=NO_TRACE, reply=event.reply)
