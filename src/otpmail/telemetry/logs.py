"""The log: one line an event, as text for people or as JSON for machines.

No line holds a code, a password, a token, or what a mail says. Events of single mails that went well are at debug.
"""

import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal

from otpmail.events import (
    ALL_EVENTS,
    ChunkingDisabled,
    CodeChecked,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    Event,
    MailAccepted,
    MailDeferred,
    MailSettled,
    MessageLimitDropped,
    MessageLimitLearned,
    RelayDown,
    RelayIdle,
    RelayUp,
)
from otpmail.model import Mail, MailState, RecipientResult

log = logging.getLogger("otpmail")
_CHUNKS_UNSAFE = "it does not read past a chunk that it refuses; mails go by DATA, not BDAT"


def set_up(log_format: Literal["text", "json"], level: str) -> None:
    """Send the log of the whole process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(level.upper())


def log_event(level: int, event: str, message: str, **fields: object) -> None:
    """Log `message`; `event` is its stable name, `fields` are what a machine may look at."""
    if log.isEnabledFor(level):
        log.log(level, message, extra={"event": event, "fields": fields})


def mails(count: int) -> str:
    """`1 mail`, `2 mails`."""
    return f"{count} mail" if count == 1 else f"{count} mails"


class TextFormatter(logging.Formatter):
    """`12:30:01 INFO message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, event, message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_ALL_BUT_DEBUG = ALL_EVENTS - {MailAccepted, CodeChecked}


class LogObserver:
    """Writes events to the log, and counts the mails for the last line; `relays` is how many there are."""

    def __init__(self, relays: int = 1) -> None:
        self._debug = log.isEnabledFor(logging.DEBUG)
        # One of the two that are left out comes with every mail, and would make no line.
        self.event_types = ALL_EVENTS if self._debug else _ALL_BUT_DEBUG
        self.relayed = 0
        self.failed = 0
        self._relays = relays
        self._down: set[str] = set()

    def notify(self, event: Event) -> None:
        """Write `event` down, if it is worth a line at the level that is set."""
        if isinstance(event, MailSettled):  # as nearly every one is: a pattern takes longer
            self._settled(event.mail)
            return
        match event:
            case MailDeferred(mail, retry_after, reply):
                log_event(
                    logging.INFO,
                    "mail-deferred",
                    f"mail {mail.id}: {reply}; next try in {retry_after:.0f} s",
                    mail=mail.id,
                    retry_after=round(retry_after, 3),
                )
            case MailAccepted(mail):
                log_event(logging.DEBUG, "mail-accepted", f"mail {mail.id}: accepted", mail=mail.id)
            case CodeChecked(result):
                log_event(logging.DEBUG, "code-checked", f"code checked: {result}", result=result)
            case RelayDown(relay):
                self._down.add(relay)
                _say_of_relay(event, all_down=len(self._down) == self._relays)
            case RelayUp(relay) | RelayIdle(relay):
                self._down.discard(relay)
                _say_of_relay(event)
            case _:
                _say_of_relay(event)

    def _settled(self, mail: Mail) -> None:
        if mail.state is MailState.RELAYED:
            self.relayed += 1
            if self._debug:
                log_event(logging.DEBUG, "mail-settled", f"mail {mail.id}: relayed", mail=mail.id, state="RELAYED")
            return
        self.failed += mail.state is not MailState.CANCELLED
        refusals = (_words(result) for result in mail.recipients if not result.accepted)
        replies = "; ".join(filter(None, refusals))
        log_event(
            logging.INFO if mail.state is MailState.CANCELLED else logging.WARNING,
            "mail-settled",
            f"mail {mail.id}: {mail.state.name.lower()}{replies and f': {replies}'}",
            mail=mail.id,
            state=mail.state.name,
        )


def _words(result: RecipientResult) -> str:
    """What the relay said of a recipient; our own words alone, where it said nothing."""
    return " ".join(filter(None, (str(result.code or ""), result.enhanced_code, result.reply)))


def _travel(mode: str, window: int) -> str:
    return f"{mode} mode, {window} in flight at most"


def _say_of_relay(event: Event, *, all_down: bool = False) -> None:
    match event:
        case RelayUp(relay, mode, window):
            line = logging.INFO, "relay-up", f"{relay}: connected; mail can be sent: {_travel(mode, window)}"
        case RelayDown(relay, error, wait):
            plight = "no mail can be sent; " if all_down else ""
            line = logging.ERROR, "relay-down", f"{relay}: {error}; {plight}next try in {wait:.1f} s"
        case RelayIdle(relay):
            line = logging.INFO, "relay-left", f"{relay}: no longer needed, its connections are closed"
        case DialFailed(relay, error, wait):
            line = logging.INFO, "dial-failed", f"{relay}: {error}; next try in {wait:.1f} s"
        case ChunkingDisabled(relay):
            line = logging.WARNING, "chunks-unsafe", f"{relay}: {_CHUNKS_UNSAFE}"
        case MessageLimitLearned(relay, limit):
            text = f"{relay}: it ends a connection after {mails(limit)}; each is replaced before that"
            line = logging.INFO, "message-limit-learned", text
        case MessageLimitDropped(relay, limit):
            text = f"{relay}: a connection carried more than {mails(limit)}; that is no limit any more"
            line = logging.INFO, "message-limit-dropped", text
        case ConnectionOpened(relay, mode, window):
            line = logging.DEBUG, "connection-opened", f"{relay}: connection opened: {_travel(mode, window)}"
        case ConnectionClosed(relay, cause, sent):
            line = logging.DEBUG, "connection-closed", f"{relay}: connection ended after {mails(sent)}: {cause}"
        case _:
            return
    level, name, text = line
    fields = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(event).items()}
    log_event(level, name, f"relay {text}", **fields)
