"""The ids of a call in its log lines: which are taken, and how they are cleaned."""

import io
import json
import logging
from contextvars import copy_context

import pytest

from otpmail.callers import NO_TRACE, TRACE, Trace
from otpmail.telemetry.formats import JsonFormatter, TextFormatter
from otpmail.telemetry.logs import log, log_event
from otpmail.telemetry.trace import TraceFilter, fields_of

_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (_PARENT, _PARENT),
        (_PARENT.replace("00-", "01-", 1) + "-what-comes-later", _PARENT.replace("00-", "01-", 1)),
        *(
            (malformed, None)
            for malformed in (
                "",
                "00",
                _PARENT[:-1],
                _PARENT + "-more",
                _PARENT + "0",
                _PARENT.replace("00-", "01-", 1) + "more",
                _PARENT.upper(),
                _PARENT.replace("00-", "ff-", 1),
                "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
                _PARENT.replace("-", "_"),
                _PARENT.replace("4", "٤"),
                f"{_PARENT}\n",
                f" {_PARENT}",
            )
        ),
    ],
)
def test_a_traceparent(sent: str, shown: str | None) -> None:
    """A traceparent in the form of W3C is shown, of a later version its known part; any other is ignored."""
    assert fields_of(Trace(traceparent=sent)).get("traceparent") == shown


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("7b1a0c1e-9d5c-4f3a-8a5e-1f0e1d2c3b4a", "7b1a0c1e-9d5c-4f3a-8a5e-1f0e1d2c3b4a"),
        ("Root=1-67891233-abcdef012345678912345678", "Root=1-67891233-abcdef012345678912345678"),
        ("  a  b ", "a_b"),
        ('a" level=error ] \r\n\x1b[31m', "a_level=error_31m"),
        ("x" * 1000, "x" * 128),
        ("é", None),
        (" \t ", None),
        ("", None),
    ],
)
def test_a_request_id(sent: str, shown: str | None) -> None:
    """A request id can't look like another part of a line, and is cut; one without any usual character is ignored."""
    assert fields_of(Trace(request_id=sent)).get("x-request-id") == shown


def test_the_ids_in_metadata() -> None:
    """The first of several ids counts, and at most 256 characters are kept for as long as a mail is on its way."""
    metadata = [("user-agent", "x"), ("x-request-id", "a" * 5000), ("x-request-id", "b"), ("traceparent", _PARENT)]
    assert Trace.read(metadata) == Trace(_PARENT, "a" * 256)
    assert Trace.read([("other-bin", b"\0")]) == NO_TRACE


def _lines_of_a_call(formatter: logging.Formatter, *, in_message: bool) -> list[str]:
    """Log in the task of a call: of that call, of a mail of another call, and of nothing that any call asked for."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    handler.addFilter(TraceFilter(in_message=in_message))

    def run() -> None:
        TRACE.set(Trace(_PARENT, "own"))
        log_event(logging.WARNING, "one", "100% of it", some=1)
        log_event(logging.WARNING, "two", "of another", trace=Trace(request_id="other"))
        log_event(logging.WARNING, "three", "of nobody", trace=NO_TRACE)

    log.addHandler(handler)
    try:
        copy_context().run(run)
    finally:
        log.removeHandler(handler)
    return output.getvalue().splitlines()


def test_lines_in_text() -> None:
    """In text, the ids stand at the end of a line: those of its mail, else those of the call that logs it."""
    assert [line.split(" ", 2)[2] for line in _lines_of_a_call(TextFormatter(), in_message=True)] == [
        f"100% of it [traceparent={_PARENT} x-request-id=own]",
        "of another [x-request-id=other]",
        "of nobody",
    ]


def test_lines_in_json() -> None:
    """In JSON, the ids are fields under the names of their metadata, and the message is without them."""
    one, two, three = map(json.loads, _lines_of_a_call(JsonFormatter(), in_message=False))
    assert (one["message"], one["some"], one["traceparent"], one["x-request-id"]) == ("100% of it", 1, _PARENT, "own")
    assert (two["x-request-id"], two.get("traceparent")) == ("other", None)
    assert not {"traceparent", "x-request-id"} & three.keys()
