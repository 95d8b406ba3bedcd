"""The two forms of a line of the log."""

import json
import logging
import sys
from datetime import datetime

import pytest

from otpmail.telemetry.formats import JsonFormatter, TextFormatter


def _record(**extra: object) -> logging.LogRecord:
    record = logging.LogRecord("otpmail", logging.INFO, "file", 1, "a %s\nb", ("word",), None)
    record.__dict__.update(extra)
    return record


def test_json_is_an_object_a_line() -> None:
    """A JSON line holds time (RFC 3339), level, event, message and the fields; no value breaks the line."""
    line = JsonFormatter().format(_record(event="e", fields={"sent": 3, "odd": object}))
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["event"], found["message"], found["sent"]) == ("info", "e", "a word\nb", 3)
    assert datetime.fromisoformat(found["time"]).tzinfo is not None


def test_json_of_what_others_log() -> None:
    """A library's record has its logger's name as its event, and its exception in the same line."""
    try:
        raise ValueError("broken")
    except ValueError:
        record = _record(exc_info=sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["event"] == "otpmail"
    assert "ValueError: broken" in found["exception"]


def test_text_is_for_people() -> None:
    """A line of text is time with date and zone (RFC 3339), level and message, also as seconds go on."""
    formatter = TextFormatter()
    for created in (1.25, 1.5, 1764366537.0, 1764366538.999, 1.25):
        record = _record(created=created, msecs=created % 1 * 1000)
        time, _, rest = formatter.format(record).partition(" ")
        assert rest == "INFO a word\\nb"
        assert datetime.fromisoformat(time).timestamp() == pytest.approx(created, abs=0.001)
        assert datetime.fromisoformat(time).tzinfo is not None


_CONTROLS = "\x00\x07\r\x1b[31m\x7f\x85\x9b\u2028\u202e\u2066\u200b\ufeff\ud800"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_line_holds_a_control_character(formatter: logging.Formatter) -> None:
    """Neither a message nor an exception, nor a field, can move the cursor, turn text around or begin a line."""
    try:
        raise ValueError(f"{_CONTROLS}\n12:00:00 INFO forged")
    except ValueError:
        record = _record(exc_info=sys.exc_info(), fields={"reply": _CONTROLS})
    record.msg, record.args = f"{_CONTROLS} ü 漢\n12:00:00 INFO forged", None
    text = formatter.format(record)
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert "forged" in lines[0]
    assert all(line.startswith("  ") for line in lines[1:])
    assert text.encode("utf-8")


def test_an_exception_in_text_keeps_its_lines() -> None:
    """A traceback is read by people, so each of its lines is one, indented below its record."""
    try:
        raise ValueError("broken")
    except ValueError:
        record = _record(exc_info=sys.exc_info())
    first, second, *_, last = TextFormatter().format(record).split("\n")
    assert first.endswith("INFO a word\\nb")
    assert (second, last) == ("  Traceback (most recent call last):", "  ValueError: broken")
