"""Adds the ids of a call to its lines in the log: `traceparent` (W3C Trace Context) and `x-request-id`.

Nothing is checked before a line is logged: most calls leave none.
"""

import logging
import re
from collections.abc import Mapping

from otpmail.callers import REQUEST_ID, TRACE, TRACEPARENT, Trace

# Version, trace id, parent id, flags (W3C Trace Context, 3.2.2); a later version may go on after these.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PARENT_LENGTH = 55
_UNSAFE = re.compile(r"[^A-Za-z0-9._~:/+=@,-]+")
_LONGEST_SHOWN = 128


class TraceFilter(logging.Filter):
    """Adds the ids to the fields of a record, and with `in_message` to its text.

    It takes them from the record's `trace`, and where a record has none, from the call in whose task the line is
    logged. Add it to a handler that runs in the logging task.
    """

    def __init__(self, *, in_message: bool) -> None:
        super().__init__()
        self._in_message = in_message

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; no record is dropped."""
        trace = getattr(record, "trace", None) or TRACE.get()
        ids = fields_of(trace)
        if ids:
            record.fields = {**getattr(record, "fields", {}), **ids}
            if self._in_message:
                shown = " ".join(f"{key}={value}" for key, value in ids.items())
                record.msg = f"{record.msg} [{shown}]"  # no id holds a %
        return True


def fields_of(trace: Trace) -> Mapping[str, str]:
    """Return the ids under their names, cleaned; a malformed one is left out.

    A request id has no standard form, so each run of characters outside a usual set becomes `_`.
    """
    parent, request_id = trace.traceparent[:_PARENT_LENGTH], _UNSAFE.sub("_", trace.request_id.strip())
    rest = trace.traceparent[_PARENT_LENGTH:]
    fields: dict[str, str] = {}
    if _PARENT.fullmatch(parent) and (not rest or (rest.startswith("-") and not parent.startswith("00"))):
        fields[TRACEPARENT] = parent
    if request_id.strip("_"):
        fields[REQUEST_ID] = request_id[:_LONGEST_SHOWN]
    return fields
