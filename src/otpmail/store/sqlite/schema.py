"""The tables of a store's file, and the marks that identify it."""

from collections.abc import Callable, Mapping

from otpmail.store.digests import Digests
from otpmail.store.sqlite.migration import Step
from otpmail.store.sqlite.moves import copy_settled, move_requests, name_codes, sort_codes

APPLICATION_ID = 0x6F74706D
"""`otpm` in ASCII: SQLite's own mark for whose file it is."""

SCHEMA = 5
"""The version of the tables (user_version). A program refuses a file of a later one."""

UNDER_WAY = 1 << 16
"""Added to the user_version of a file whose rows are being moved to the next schema.

An earlier program would take the half-moved file for one of its own otherwise.
"""

_TABLES = """
CREATE TABLE mail(
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    deadline REAL NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE progress(seq INTEGER PRIMARY KEY, progress BLOB NOT NULL);
CREATE TABLE settled(
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kept INTEGER NOT NULL,
    ends REAL NOT NULL,
    request BLOB,
    record BLOB NOT NULL
);
CREATE INDEX settled_ends ON settled(kept, ends);
CREATE TABLE request(
    key BLOB PRIMARY KEY,
    state INTEGER NOT NULL,
    mail TEXT NOT NULL,
    seq INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    ends REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE code(key BLOB PRIMARY KEY, ends REAL NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clock(time REAL NOT NULL);
INSERT INTO clock VALUES (0.0);
"""
"""Open mails have no second index: the process knows them by `seq`, and reads the table once, when it starts.

`settled.kept` says whether a repeated request id finds the mail; `request` is then, or was, that id's key. A random key
for mails would cost four times as much as `seq` does.
"""

_RETRIES = """
CREATE TABLE failed(
    seq INTEGER PRIMARY KEY,
    ends REAL NOT NULL,
    octets INTEGER NOT NULL,
    progress BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX failed_ends ON failed(ends, octets);
ALTER TABLE clock ADD COLUMN running INTEGER NOT NULL DEFAULT 1;
"""
"""`failed` has the content of settled mails that may be retried.

`clock.running` is 1 from the start of a process to its stop. Where a start finds it so, the process before was killed.
"""

_BOOTS = """
ALTER TABLE clock ADD COLUMN boot TEXT NOT NULL DEFAULT '';
ALTER TABLE clock ADD COLUMN boot_seconds REAL NOT NULL DEFAULT 0.0;
"""
"""`clock.time` was written `boot_seconds` after the start of the machine that `boot` names."""

_BEGIN_PACKS = """
ALTER TABLE settled RENAME TO settled_3;
CREATE TABLE settled(
    place INTEGER PRIMARY KEY,
    mails INTEGER NOT NULL,
    forgotten REAL NOT NULL,
    ends REAL NOT NULL,
    id TEXT,
    records BLOB NOT NULL
);
CREATE TABLE remembered(place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
ALTER TABLE failed RENAME TO failed_3;
DROP INDEX failed_ends;
CREATE TABLE failed(
    place INTEGER PRIMARY KEY,
    ends REAL NOT NULL,
    octets INTEGER NOT NULL,
    progress BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX failed_ends ON failed(ends, octets);
ALTER TABLE code RENAME TO code_3;
CREATE TABLE code(key BLOB PRIMARY KEY, ends REAL NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE named(row INTEGER PRIMARY KEY, name BLOB NOT NULL, ends REAL NOT NULL, record BLOB NOT NULL);
ALTER TABLE request RENAME TO request_3;
CREATE TABLE request(
    seq INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    state INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    place INTEGER
);
CREATE TABLE claimed(seq INTEGER PRIMARY KEY, mail TEXT NOT NULL);
"""
"""Settled mails lie in packs of many in the order of their ends (`settled.py`), and request ids in that of their calls.

Neither writes to more than the last pages of its table. `settled.id` is set where the row is one mail, encrypted alone.
`remembered` finds mails by id, `failed` has contents by place. `request.key` is a part of a digest (`key_number`), and
`request.place` that of its mail in `settled`. `claimed` has the ids of mails that have a request id and are in no other
table. Names of code records and fingerprints of requests have a key (`store.digests`); what they were is overwritten.
"""

_END_PACKS = """
PRAGMA secure_delete=FAST;
DROP TABLE request_3;
DROP TABLE code_3;
DROP TABLE named;
DROP TABLE failed_3;
DROP TABLE settled_3;
DROP TABLE IF EXISTS temp.slice;
"""


_ADDRESSES = """
CREATE TABLE address(key BLOB PRIMARY KEY, ends REAL NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
"""
"""The records of addresses, encrypted. Keys are digests with a key (`store.addresses`)."""


def key_number(digest: bytes) -> int:
    """Return the number that stands for a request id: 64 bits of the digest of its caller and itself."""
    return int.from_bytes(digest[:8], signed=True)


def step_functions(digests: Digests) -> Mapping[str, Callable[[bytes], bytes | int]]:
    """Return the functions of octets that the steps call, by their names in SQL."""
    return {
        "key_number": key_number,
        "record_name": lambda key: digests.record_names(key)[0],
        "kept_fingerprint": lambda fingerprint: digests.kept_fingerprints(fingerprint)[0],
    }


TABLES = "mail", "progress", "settled", "remembered", "failed", "request", "claimed", "code", "address", "clock"
"""The tables of this schema."""

STEPS = (
    Step(_TABLES),
    Step(_RETRIES),
    Step(_BOOTS),
    Step(_BEGIN_PACKS, (copy_settled, move_requests, name_codes, sort_codes), _END_PACKS),
    Step(_ADDRESSES),
)
"""The steps that bring a file from each schema to the next, an empty one first."""


def schema_of(user_version: int) -> int:
    """Return the schema of a file by its user_version; the one to which it is being brought where that is under way."""
    return user_version - UNDER_WAY + 1 if user_version >= UNDER_WAY else user_version
