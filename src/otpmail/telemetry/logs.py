"""The log: a line for each event, as text for people or as JSON for machines.

No line holds a code, a password, a token or a mail's content. Events of single mails that went well are at debug.
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
_ALL_BUT_DEBUG = ALL_EVENTS - {MailAccepted, CodeChecked, ConnectionOpened, ConnectionClosed}


def set_up(log_format: Literal["text", "json"], level: str) -> None:
    """Send the log of the whole process to standard error: ours from `level` on, the libraries' from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(level.upper())


def log_event(level: int, event: str, message: str, **fields: object) -> None:
    """Log `message`. `event` is its stable name; `fields` are for machines, and are shown in JSON only."""
    if log.isEnabledFor(level):
        log.log(level, message, extra={"event": event, "fields": fields})


def mails(count: int) -> str:
    """Return the count with its noun: `1 mail`, `2 mails`."""
    return f"{count} mail" if count == 1 else f"{count} mails"


class TextFormatter(logging.Formatter):
    """Formats a record as `12:30:01 INFO message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object in one line: time (RFC 3339), level, event, message, the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
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


class LogObserver:
    """Logs events, and counts mails for the last line of the log. `relays` is the number of configured relays."""

    def __init__(self, relays: int = 1) -> None:
        self._debug = log.isEnabledFor(logging.DEBUG)
        # Every mail brings a MailAccepted, which would make no line at other levels.
        self.event_types = ALL_EVENTS if self._debug else _ALL_BUT_DEBUG
        self.relayed = 0
        self.failed = 0
        self._relays = relays
        self._down: set[str] = set()

    def __repr__(self) -> str:
        return f"<LogObserver {self.relayed} relayed, {self.failed} failed>"

    def notify(self, event: Event) -> None:
        """Log the event, if its level is on."""
        match event:
            case MailSettled():
                self._settled(event.mail)
            case MailDeferred(mail, retry_after, reply):
                text = f"mail {mail.id}: deferred, next attempt in {retry_after:.0f} s: {reply}"
                log_event(logging.INFO, "mail-deferred", text, mail=mail.id, retry_after=round(retry_after, 3))
            case MailAccepted(mail):
                log_event(logging.DEBUG, "mail-accepted", f"mail {mail.id}: accepted", mail=mail.id)
            case CodeChecked(result):
                log_event(logging.DEBUG, "code-checked", f"code checked: {result}", result=result)
            case RelayDown(relay):
                self._down.add(relay)
                _log_relay(event, all_down=len(self._down) == self._relays)
            case RelayUp(relay) | RelayIdle(relay):
                self._down.discard(relay)
                _log_relay(event)
            case _:
                _log_relay(event)

    def _settled(self, mail: Mail) -> None:
        if mail.state is MailState.RELAYED:
            self.relayed += 1
            if self._debug:
                log_event(logging.DEBUG, "mail-settled", f"mail {mail.id}: relayed", mail=mail.id, state="RELAYED")
            return
        self.failed += mail.state is not MailState.CANCELLED
        rejections = (_reply(result) for result in mail.recipients if not result.accepted)
        replies = "; ".join(filter(None, rejections))
        log_event(
            logging.INFO if mail.state is MailState.CANCELLED else logging.WARNING,
            "mail-settled",
            f"mail {mail.id}: {mail.state.name.lower()}{replies and f': {replies}'}",
            mail=mail.id,
            state=mail.state.name,
        )


def _reply(result: RecipientResult) -> str:
    """Return the relay's reply for a recipient, or our own words where there was no reply."""
    return " ".join(filter(None, (str(result.code or ""), result.enhanced_code, result.reply)))


def _log_relay(event: Event, *, all_down: bool = False) -> None:
    match event:
        case RelayUp(relay, mode, window):
            line = logging.INFO, "relay-up", f"{relay} is up: {_capacity(mode, window)}"
        case RelayDown(relay, error, wait):
            effect = "is down, no mail can be sent" if all_down else "is down"
            line = logging.ERROR, "relay-down", f"{relay} {effect}, next dial in {wait:.1f} s: {error}"
        case RelayIdle(relay):
            line = logging.INFO, "relay-left", f"{relay} is not needed now; its connections are closed"
        case DialFailed(relay, error, wait):
            line = logging.INFO, "dial-failed", f"{relay}: dial failed, next dial in {wait:.1f} s: {error}"
        case ChunkingDisabled(relay):
            text = f"{relay} does not read past a chunk that it rejects; mails go by DATA, not BDAT"
            line = logging.WARNING, "chunks-unsafe", text
        case MessageLimitLearned(relay, limit):
            text = f"{relay} closes a connection after {mails(limit)}; each is replaced before that"
            line = logging.INFO, "message-limit-learned", text
        case MessageLimitDropped(relay, limit):
            text = f"{relay} took more than {mails(limit)} on a connection; that limit is dropped"
            line = logging.INFO, "message-limit-dropped", text
        case ConnectionOpened(relay, mode, window):
            line = logging.DEBUG, "connection-opened", f"{relay}: connection opened: {_capacity(mode, window)}"
        case ConnectionClosed(relay, cause, sent):
            line = logging.DEBUG, "connection-closed", f"{relay}: connection closed after {mails(sent)}: {cause}"
        case _:
            return
    level, name, text = line
    fields = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(event).items()}
    log_event(level, name, f"relay {text}", **fields)


def _capacity(mode: str, window: int) -> str:
    return f"{mode} mode, at most {mails(window)} in flight"
