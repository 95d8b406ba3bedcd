"""No representation of a value or a part shows a code, a credential or the content of a mail."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import logging
import pkgutil
import traceback
from collections import deque
from functools import partial
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any

import pytest

import otpmail
from drafts import read_draft
from otpmail.compose.attachment import Attachment
from otpmail.compose.catalog import Templates
from otpmail.compose.draft import Draft
from otpmail.delivery.job import Job
from otpmail.errors import OtpmailError
from otpmail.mail.submission import Submission
from otpmail.model import Envelope, WaitFor
from otpmail.otp.codes import CodeBook
from otpmail.otp.request import CodeRequest
from otpmail.otp.service import OtpService
from otpmail.settings import OtpSettings
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.mode import Mode
from otpmail.smtp.redaction import Redactor
from otpmail.smtp.replies import Reply
from otpmail.smtp.session import Session
from rig import MailRig, call_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SENTINEL = "hunter2"
_CONTAINERS = (dict, list, tuple, set, frozenset, deque, partial, MethodType, MappingProxyType)
KEYS = "k1:c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="

# The names and types of fields that may hold a code, a credential, or what a caller writes into a mail.
SUSPECT_NAMES = frozenset(
    {
        *(
            "answer",
            "answers",
            "body",
            "code",
            "codes",
            "content",
            "forms",
            "headers",
            "html",
            "key",
            "keys",
            "password",
        ),
        *("labels", "query", "request", "secret", "secrets", "subject", "text", "token", "typed", "variables"),
    }
)
SUSPECT_TYPES = ("bytes", "_pb2.")
# Harmless ones: ids and digests, templates that are not filled in, SMTP and gRPC codes, answers of the metrics port,
# lines of the log.
HARMLESS = frozenset(
    {
        *(("Challenge", "id"), ("Submission", "fingerprint"), ("CodeRequest", "fingerprint"), ("Entry", "fingerprint")),
        *(("Change", "keys"), ("Row", "fingerprint"), ("Prepared", "request"), ("Send", "key")),  # digests, and names
        ("CodeRecord", "call"),
        *(("Evicted", "names"), ("Span", "owner"), ("AddressRecord", "spellings")),  # digests
        ("Issued", "answer"),
        *(("Request", "fingerprint"), ("Recipients", "digests"), ("Credentials", "token"), ("Credentials", "identity")),
        *(("MailTemplate", "subject"), ("MailTemplate", "text"), ("MailTemplate", "html")),
        *(("JinjaFiles", "subject"), ("JinjaFiles", "text"), ("JinjaFiles", "html")),  # paths
        ("UseCases", "codes"),  # a service
        *(("Slot", "call"), ("_Row", "records")),  # a part of an id, and what is encrypted
        *(("Slot", "scope"), ("Slot", "device"), ("Lane", "device"), ("Answer", "request"), ("CodeRecord", "answers")),
        *(("CheckRequest", "fingerprint"), ("Place", "key"), ("Place", "scope"), ("Place", "earlier")),
        *(("Send", name) for name in ("scope", "device", "earlier")),
        *(("Others", name) for name in ("counts", "keep_counts", "record", "keep_record")),  # functions
        *(("Sending", "counted"), ("Quota", "key"), ("Send", "mailbox"), ("Place", "mailbox")),
        *(("Attempt", name) for name in ("scope", "device", "only", "request", "new_device", "earlier", "mailbox")),
        *(("RecipientResult", "code"), ("RpcStatus", "code"), ("Reply", "code")),
        *(
            ("Response", "headers"),
            ("Response", "body"),
            ("_Line", "octets"),
            ("_Report", "octets"),
            ("Timeouts", "content"),
        ),
    }
)


def _values() -> Iterator[type]:
    """Yield every dataclass and NamedTuple of the package."""
    for found in pkgutil.walk_packages(otpmail.__path__, "otpmail."):
        if found.name.endswith(("__main__", "_pb2", "_pb2_grpc")):
            continue
        for kind in vars(importlib.import_module(found.name)).values():
            if isinstance(kind, type) and kind.__module__ == found.name and _fields(kind):
                yield kind


def _fields(kind: type) -> dict[str, str]:
    """The types of the fields by their names, empty for a class that is no such value."""
    if dataclasses.is_dataclass(kind):
        return {field.name: _named(field.type) for field in dataclasses.fields(kind)}
    return {name: _named(kind.__annotations__[name]) for name in getattr(kind, "_fields", ())}


def _named(kind: object) -> str:
    """A type as it stands in the source."""
    return kind.__name__ if type(kind) is type else str(kind).replace("collections.abc.", "")


class _Marked:
    """Stands for the value of a field, and shows which in any representation."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<<{self._name}>>"


@pytest.mark.parametrize("kind", list(_values()), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_value_hides_the_fields_that_may_hold_a_secret(kind: type) -> None:
    """A dataclass or NamedTuple shows no field whose name or type suggests a secret, unless it is known as harmless."""
    fields = _fields(kind)
    value: Any
    if issubclass(kind, tuple):
        value = tuple.__new__(kind, map(_Marked, fields))
    else:
        value = object.__new__(kind)
        for name in fields:
            object.__setattr__(value, name, _Marked(name))
    shown = {name: named for name, named in fields.items() if f"<<{name}>>" in f"{value!r} {value!s}"}
    suspect = {name for name, named in shown.items() if name in SUSPECT_NAMES or any(t in named for t in SUSPECT_TYPES)}
    assert {name for name in suspect if (kind.__name__, name) not in HARMLESS} == set()


class _Rig(MailRig):
    """The use cases of codes and mails, with what they keep on the way."""

    def __init__(self) -> None:
        super().__init__()
        templates = Templates(None, default_locale="en")
        settings = OtpSettings.from_layers({"OTP_KEYS": KEYS})
        self.codes = OtpService(
            settings, self.memory.challenges, self.mails, templates, self, codes=CodeBook.of(settings)
        )


def _parts(*roots: object) -> Iterator[object]:
    """Yield every object of the package's classes that the roots lead to, and the roots."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        ours = str(type(thing).__module__).startswith(("otpmail.", __name__))
        if ours:
            yield thing
        if ours or isinstance(thing, _CONTAINERS):
            waiting += gc.get_referents(thing)


async def test_no_part_shows_the_code_or_the_content_that_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    """While a code and a mail are on their way, none of all objects shows the code, a variable or the content."""
    rig = _Rig()
    labels, given = (("a", SENTINEL),), {"shop": SENTINEL}
    request = CodeRequest(email="ada@example.org", variables=given, wait_for=WaitFor.QUEUE, labels=labels)
    await rig.codes.send_code(call_of(), request)
    draft = read_draft(
        to=["bob@example.org"],
        subject=SENTINEL,
        text=SENTINEL,
        html=SENTINEL,
        headers=(("X-Token", SENTINEL),),
        attachments=(Attachment("a.txt", "text/plain", SENTINEL.encode()),),
    )
    await rig.mails.accept(call_of(), Submission(draft=draft, wait_for=WaitFor.QUEUE, labels=labels))
    session = Session(Capabilities({}), Mode.PLAIN, window=1, redactor=Redactor.of_credentials("me", SENTINEL))
    jobs = list(rig.lifecycle.jobs.values())
    transaction = session.begin(jobs[0].offer)
    (code,) = {job.envelope.code for job in jobs if job.envelope.code}
    assert code.encode() in jobs[0].envelope.content
    entries = [job.entry() for job in jobs]
    parts = list(_parts(rig, request, draft, session, transaction, entries, Reply(550, SENTINEL.encode())))
    assert {type(part) for part in parts} >= {Job, Reply, Session, CodeRequest, Draft, Attachment, Envelope, Redactor}
    for part in parts:
        shown = f"{part!r} {part!s}"
        assert SENTINEL not in shown, type(part)
        assert code not in shown, type(part)
    assert code not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": (("Subject", SENTINEL),)},
        {"headers": (("X-Token", f"{SENTINEL}\n"),)},
        {"headers": (("X-Token", SENTINEL * 3000),)},
        {"subject": f"{SENTINEL}\r\nBcc: x@y.org"},
        {"text": f"{SENTINEL}\0"},
        {"html": f"{SENTINEL}\0"},
        {"attachments": (Attachment("a\n.txt", "text/plain", SENTINEL.encode()),)},
    ],
)
def test_no_error_shows_the_value_of_a_field(wrong: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """An error about a mail names the field, and neither its text nor a traceback in the log holds the value."""
    with pytest.raises(OtpmailError) as caught:
        read_draft(to=["ada@example.org"], **wrong)
    with caplog.at_level(logging.ERROR):
        logging.getLogger("test").error("failed", exc_info=caught.value)
    shown = f"{caught.value} {caught.value!r} {''.join(traceback.format_exception(caught.value))} {caplog.text}"
    assert SENTINEL not in shown
