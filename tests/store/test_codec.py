"""The codec: what a store keeps comes back whole, and octets of another version are refused."""

from collections.abc import Callable
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.errors import StoreError
from otpmail.model import (
    LONG,
    AsciiHead,
    Challenge,
    Envelope,
    IssuedCode,
    Mail,
    MailState,
    Priority,
    RecipientResult,
)
from otpmail.store import codec
from otpmail.store.base import Entry, Progress
from otpmail.suppression import Suppression, SuppressionScope

_TIMES = st.floats(allow_nan=False, allow_infinity=False)
_CHALLENGES = st.builds(
    Challenge,
    st.binary(min_size=16, max_size=16),
    st.text(max_size=40),
    _TIMES,
    st.integers(0, 100),
    st.integers(0, LONG),
)
_ASCII_HEADS = st.none() | st.builds(AsciiHead, st.binary(), st.integers(0, 999))
_RESULTS = st.lists(st.builds(RecipientResult, st.text(), st.integers(0, 599), st.text(), st.text()), max_size=5).map(
    tuple
)
_MAILS = st.builds(
    Mail,
    id=st.text(),
    caller=st.text(),
    message_id=st.text(),
    create_time=_TIMES,
    request_id=st.text(),
    state=st.sampled_from(MailState),
    recipients=_RESULTS,
    attempts=st.integers(0, 1000),
    settle_time=st.none() | _TIMES,
    issued=st.none() | st.builds(IssuedCode, _CHALLENGES, _TIMES, st.binary(max_size=16)),
    labels=st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
)
_ADDRESSES = st.lists(st.text(), max_size=5).map(tuple)
_PROGRESS = st.builds(
    Progress,
    pending=_ADDRESSES,
    results=_RESULTS,
    uncertain=_ADDRESSES,
    attempts=st.integers(0, 1000),
    losses=st.integers(0, 1000),
    copies=st.integers(0, 3),
    begun=st.booleans(),
    deaths=st.integers(0, 3),
)
_ENTRIES = st.builds(
    Entry,
    mail=_MAILS,
    envelope=st.builds(
        Envelope, st.text(), _ADDRESSES, st.binary(), st.booleans(), ascii_head=_ASCII_HEADS, relay=st.text()
    ),
    priority=st.sampled_from(Priority),
    deadline=_TIMES,
    progress=_PROGRESS,
    fingerprint=st.binary(max_size=32),
).map(lambda entry: replace(entry, envelope=replace(entry.envelope, id=entry.mail.id)))

_COUNTED = st.lists(st.binary(min_size=16, max_size=16), max_size=3).map(tuple), st.binary(max_size=16)

_MAIL = Mail("m1", "shop", "<m1@example.org>", 1.0)


@given(_MAILS, _TIMES, _TIMES, st.binary(max_size=32))
def test_a_settled_mail_comes_back_whole(mail: Mail, forgotten: float, request_ends: float, fingerprint: bytes) -> None:
    """The codec returns a settled mail with its times and its request's fingerprint."""
    octets = codec.encode_settled(mail, forgotten=forgotten, request_ends=request_ends, fingerprint=fingerprint)
    assert codec.decode_settled(octets) == (mail, forgotten, request_ends, fingerprint)


@given(_ENTRIES)
def test_an_entry_comes_back_whole(entry: Entry) -> None:
    """The codec returns an entry with content, terms and progress, in the types it had."""
    decoded = codec.decode_entry(codec.encode_entry(entry))
    assert decoded == entry
    assert isinstance(decoded.priority, Priority)
    assert isinstance(decoded.envelope.content, bytes)
    assert isinstance(decoded.envelope.recipients, tuple)


@given(_ENTRIES, *_COUNTED)
def test_where_an_open_mail_counts_comes_back(entry: Entry, counted: tuple[bytes, ...], mailbox: bytes) -> None:
    """An open mail comes back with where it counts, which a settled one, and a reader of an earlier version, leave."""
    issued = entry.mail.issued and replace(entry.mail.issued, counted=counted, mailbox=mailbox)
    mail = replace(entry.mail, issued=issued)
    octets = codec.encode_entry(replace(entry, mail=mail))
    assert codec.decode_entry(octets).mail == mail
    *fields, labels = msgpack.unpackb(codec.encode_entry(entry))[1]
    assert msgpack.unpackb(octets)[1][: len(fields) + 1] == [*fields, labels]
    settled = codec.encode_settled(mail, forgotten=1.0, request_ends=2.0, fingerprint=b"")
    assert codec.decode_settled(settled)[0] == entry.mail


@given(_PROGRESS)
def test_progress_comes_back_whole(progress: Progress) -> None:
    """The codec returns progress in the types it had, since recipients are compared with those of an envelope."""
    assert codec.decode_progress(codec.encode_progress(progress)) == progress


def _of_version_5(octets: bytes) -> bytes:
    _, *fields = msgpack.unpackb(octets)
    packed: bytes = msgpack.packb((5, *fields, "a field that this program does not know"))
    return packed


_SETTLED = codec.encode_settled(_MAIL, forgotten=1.0, request_ends=2.0, fingerprint=b"f")
_PROGRESS_OCTETS = codec.encode_progress(Progress(pending=("ada@x.org",)))
_ENTRY_OCTETS = codec.encode_entry(
    Entry(
        mail=_MAIL,
        envelope=Envelope("service@example.org", ("ada@x.org",), b"hi\r\n"),
        priority=Priority.BULK,
        deadline=60.0,
        progress=Progress(pending=("ada@x.org",)),
    )
)


@pytest.mark.parametrize(
    ("octets", "decode", "name", "versions"),
    [
        (_of_version_5(_SETTLED), codec.decode_settled, "settled mail", "1 and 2 and 3 and 4"),
        (_of_version_5(_ENTRY_OCTETS), codec.decode_entry, "mail", "1 and 2 and 3 and 4"),
        (_of_version_5(_PROGRESS_OCTETS), codec.decode_progress, "progress", "1 and 2 and 3 and 4"),
    ],
)
def test_another_version_is_a_store_error(
    octets: bytes, decode: Callable[[bytes], object], name: str, versions: str
) -> None:
    """The message names what was read, its version, and those that this program reads."""
    with pytest.raises(StoreError) as caught:
        decode(octets)
    assert str(caught.value) == f"a {name} in the store has version 5; this program reads version {versions}"


def test_a_mail_of_version_1_has_no_labels() -> None:
    """The codec reads what a program before labels wrote."""
    fields = ["m1", "shop", "<m1@example.org>", 1.0, "", "queued", [], 0, None, None]
    assert codec.decode_settled(msgpack.packb([1, fields, 1.0, 2.0, b"f"])) == (_MAIL, 1.0, 2.0, b"f")
    assert codec.decode_progress(msgpack.packb([1, ["ada@x.org"], [], [], 0, 0, 0])).pending == ("ada@x.org",)


def test_the_mail_of_a_code_without_the_key_of_its_record() -> None:
    """The codec reads the mail of a code as a program wrote it that did not keep the key of the code's record."""
    fields = ["m1", "shop", "<m1@example.org>", 1.0, "", "queued", [], 0, None, [bytes(16), "k1", 9.0, 0, 5.0], []]
    mail, *_ = codec.decode_settled(msgpack.packb([3, fields, 1.0, 2.0, b"f"]))
    assert mail.issued == IssuedCode(Challenge(bytes(16), "k1", 9.0), 5.0, record=b"")


def test_the_mail_of_a_code_that_has_used_a_limit_up() -> None:
    """A stored mail keeps until when its code has used limits up, also where it has no key of a record."""
    for record in (b"", b"the key"):
        mail = replace(_MAIL, issued=IssuedCode(Challenge(bytes(16), "k1", 9.0), 5.0, record, spent_until=7.0))
        octets = codec.encode_settled(mail, forgotten=1.0, request_ends=2.0, fingerprint=b"f")
        assert codec.decode_settled(octets)[0] == mail


def test_the_forms_that_are_written() -> None:
    """A change of these octets needs a new version: stores of earlier programs hold them."""
    assert msgpack.unpackb(_ENTRY_OCTETS) == [
        3,
        ["m1", "shop", "<m1@example.org>", 1.0, "", "queued", [], 0, None, None, []],
        ["service@example.org", ["ada@x.org"], b"hi\r\n", False],
        2,
        60.0,
        [["ada@x.org"], [], [], 0, 0, 0, False, 0],
        b"",
    ]
    assert msgpack.unpackb(_SETTLED) == [3, msgpack.unpackb(_ENTRY_OCTETS)[1], 1.0, 2.0, b"f"]
    assert msgpack.unpackb(_PROGRESS_OCTETS) == [3, ["ada@x.org"], [], [], 0, 0, 0, False, 0]


_SUPPRESSED = RecipientResult(
    "ada@x.org", reply="nothing was sent", suppression=Suppression("550 5.1.1 no", 1.0, 2.0, SuppressionScope.BULK)
)


def test_a_suppressed_recipient_comes_back() -> None:
    """A mail with a suppressed recipient comes back whole, by a version that earlier programs refuse."""
    mail = replace(_MAIL, recipients=(_SUPPRESSED, RecipientResult("bob@x.org", 250, "2.0.0", "ok")))
    settled = codec.encode_settled(mail, forgotten=1.0, request_ends=2.0, fingerprint=b"f")
    assert codec.decode_settled(settled)[0] == mail
    progress = Progress(pending=("bob@x.org",), results=(_SUPPRESSED,))
    octets = codec.encode_progress(progress)
    assert codec.decode_progress(octets) == progress
    entry = replace(codec.decode_entry(_ENTRY_OCTETS), progress=progress)
    assert codec.decode_entry(codec.encode_entry(entry)) == entry
    versions = [msgpack.unpackb(one)[0] for one in (settled, octets, codec.encode_entry(entry), _SETTLED)]
    assert versions == [4, 4, 4, 3]
