"""The tables of a store's file, and the marks that identify it."""

from collections.abc import Callable, Mapping

from otpmail.store.digests import Digests

APPLICATION_ID = 0x6F74706D
"""`otpm` in ASCII: SQLite's own mark for whose file it is."""

SCHEMA = 4
"""The version of the tables (user_version). A program refuses a file of a later one."""

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

_PACKS = """
CREATE TEMP TABLE placed(place INTEGER PRIMARY KEY, seq INTEGER NOT NULL UNIQUE);
INSERT INTO placed
    SELECT (kept << 40) + row_number() OVER (PARTITION BY kept ORDER BY ends, seq), seq
    FROM settled WHERE ends > (SELECT time FROM clock);
ALTER TABLE settled RENAME TO settled_3;
CREATE TABLE settled(
    place INTEGER PRIMARY KEY,
    mails INTEGER NOT NULL,
    forgotten REAL NOT NULL,
    ends REAL NOT NULL,
    id TEXT,
    records BLOB NOT NULL
);
INSERT INTO settled
    SELECT place, 1, ends, ends * kept, id, record FROM placed CROSS JOIN settled_3 USING (seq) ORDER BY place;
CREATE TABLE remembered(place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
INSERT INTO remembered SELECT place, id FROM settled;
ALTER TABLE failed RENAME TO failed_3;
DROP INDEX failed_ends;
CREATE TABLE failed(
    place INTEGER PRIMARY KEY,
    ends REAL NOT NULL,
    octets INTEGER NOT NULL,
    progress BLOB NOT NULL,
    payload BLOB NOT NULL
);
INSERT INTO failed
    SELECT place, ends, octets, progress, payload FROM placed CROSS JOIN failed_3 USING (seq) ORDER BY place;
CREATE INDEX failed_ends ON failed(ends, octets);
DROP TABLE failed_3;
PRAGMA secure_delete=ON;
CREATE TABLE code_4(key BLOB PRIMARY KEY, ends REAL NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO code_4
    SELECT record_name(key), ends, record FROM code WHERE key != x'' AND ends > (SELECT time FROM clock) ORDER BY 1;
DROP TABLE code;
ALTER TABLE code_4 RENAME TO code;
ALTER TABLE request RENAME TO request_3;
CREATE TABLE request(
    seq INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    state INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    place INTEGER
);
INSERT INTO request
    SELECT
        request_3.seq, key_number(key), state, CAST(iif(state = 3, settled_3.ends, request_3.ends) AS INTEGER),
        kept_fingerprint(fingerprint), place
    FROM request_3 LEFT JOIN placed USING (seq) LEFT JOIN settled_3 USING (seq)
    WHERE state < 2 OR place IS NOT NULL
    ORDER BY 1;
CREATE TABLE claimed(seq INTEGER PRIMARY KEY, mail TEXT NOT NULL);
INSERT INTO claimed SELECT seq, mail FROM request_3 WHERE state < 2 AND seq NOT IN (SELECT seq FROM mail);
DROP TABLE request_3;
PRAGMA secure_delete=FAST;
DROP TABLE settled_3;
DROP TABLE placed;
"""
"""Settled mails lie in packs of many in the order of their ends (`settled.py`), and request ids in that of their calls.

Neither writes to more than the last pages of its table. `settled.id` is set where the row is one mail, encrypted alone.
`remembered` finds mails by id, `failed` has contents by place. `request.key` is a part of a digest (`key_number`), and
`request.place` that of its mail in `settled`. `claimed` has the ids of mails that have a request id and are in no other
table. Names of code records and fingerprints of requests have a key (`store.digests`); what they were is overwritten.
"""


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


TABLES = "mail", "progress", "settled", "remembered", "failed", "request", "claimed", "code", "clock"
"""The tables of this schema."""

STEPS = _TABLES, _RETRIES, _BOOTS, _PACKS
"""The statements that bring a file from each schema to the next, an empty one first."""
