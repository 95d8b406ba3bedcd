"""The two forms of a line of the log: text for people, JSON for machines. Neither lets a control character through."""

import json
import logging
from datetime import UTC, datetime, tzinfo
from typing import Any


class TextFormatter(logging.Formatter):
    """Formats a record as `2026-11-28T12:30:01.123+00:00 INFO message`, in the time of this machine (RFC 3339).

    An exception follows in indented lines, so that no line which begins with a time was made up by its message.
    `process` is the number of this process among several, and stands before the message.
    """

    def __init__(self, process: int | None = None) -> None:
        number = "" if process is None else f"process={process} "
        super().__init__(f"%(asctime)s %(levelname)s {number}%(message)s")
        self._time = _Time(None)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002  its name
        """Return when the record was made, with date, milliseconds and zone."""
        return self._time.of(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library's name
        """Return the line without its exception."""
        return escape(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: Any) -> str:  # noqa: N802  the library's name
        """Return the traceback, indented."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802  the library's name
        """Return the stack, indented."""
        return _indented(stack_info)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object in one line: time (RFC 3339), level, event, message, the event's fields.

    `process` is the number of this process among several, and a field of each line.
    """

    def __init__(self, process: int | None = None) -> None:
        super().__init__()
        self._more = {} if process is None else {"process": process}
        self._time = _Time(UTC)
        self._encode = json.JSONEncoder(default=str).encode  # `json.dumps` makes an encoder for each line

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, object] = {
            "time": self._time.of(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **self._more,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line).replace("\x7f", "\\u007f")


class _Time:
    """Writes times of a zone by RFC 3339, with milliseconds; None is the zone of this machine."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._kept = -1, "", ""  # a second, and what stands before and behind its milliseconds

    def of(self, record: logging.LogRecord) -> str:
        """Return when the record was made."""
        second, before, after = self._kept
        if second != int(record.created):  # the words of a second take 3 us
            second = int(record.created)
            text = datetime.fromtimestamp(second, UTC).astimezone(self._zone).isoformat(timespec="seconds")
            before, after = text[:19], text[19:]
            self._kept = second, before, after
        return f"{before}.{int(record.msecs):03d}{after}"


def escape(text: str) -> str:
    r"""Return the text with `\x1b` and the like in place of what a terminal may obey: control and bidi characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _indented(text: str) -> str:
    return "\n".join(f"  {escape(line)}" for line in text.split("\n"))
