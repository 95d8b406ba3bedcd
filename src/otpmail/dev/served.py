"""The files of the page, the fields with which pages are served, and answers in JSON."""

import json
from http import HTTPStatus
from importlib.resources import files
from typing import Any, NamedTuple

from otpmail.web.answers import Field
from otpmail.web.exchange import Exchange

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; "
    b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COMMON: tuple[Field, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
PAGE_FIELDS: tuple[Field, ...] = ((b"content-security-policy", _POLICY), *_COMMON)

MAIL_FIELDS: tuple[Field, ...] = (
    (
        b"content-security-policy",
        (
            b"sandbox allow-popups allow-popups-to-escape-sandbox; "
            b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
            b"frame-ancestors 'self'"
        ),
    ),
    (b"x-dns-prefetch-control", b"off"),  # of hosts in links, which a policy does not stop
    *_COMMON,
)
"""Fields of a part of a mail: no script, no form, nothing from elsewhere, and no origin.

A link opens a tab of its own once a person has clicked on it: without scripts nothing else opens one.
"""


class File(NamedTuple):
    """A file of the page, and its type."""

    kind: bytes
    octets: bytes

    def __repr__(self) -> str:
        return "<File>"


def _read(name: str, kind: bytes) -> File:
    return File(kind, files("otpmail.dev.page").joinpath(name).read_bytes())


FILES = {
    "/": _read("index.html", b"text/html; charset=utf-8"),
    "/page/inbox.css": _read("inbox.css", b"text/css; charset=utf-8"),
    **{
        f"/page/{name}": _read(name, b"text/javascript; charset=utf-8")
        for name in ("inbox.js", "mail.js", "calls.js", "dom.js", "times.js", "undo.js")
    },
}


def to_json(value: Any) -> str:
    """Return a value as JSON, in one line."""
    return json.dumps(value, ensure_ascii=False)


def json_body(value: Any) -> bytes:
    """Return the body of an answer in JSON."""
    return to_json(value).encode("utf-8", "backslashreplace") + b"\n"


async def answer_json(exchange: Exchange, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
    """Answer with JSON that no cache keeps."""
    await answer_json_body(exchange, json_body(value), status)


async def answer_json_body(exchange: Exchange, body: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
    """Do the same with what `json_body` has made."""
    await exchange.answer(status, body, (b"content-type", b"application/json"), *PAGE_FIELDS)
