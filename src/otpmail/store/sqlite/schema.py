"""The tables of a store's file, and the marks that identify it."""

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

_KEYED = """
CREATE TABLE keyed_code(key BLOB PRIMARY KEY, ends REAL NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO keyed_code SELECT record_name(key), ends, record FROM code WHERE key != x'';
DROP TABLE code;
ALTER TABLE keyed_code RENAME TO code;
UPDATE request SET fingerprint = keyed_fingerprint(fingerprint);
"""
"""Keys of code records and fingerprints of requests are digests with a key from here on (`store.digests`)."""

STEPS = _TABLES, _RETRIES, _BOOTS, _KEYED
"""What brings a file from each schema to the next, an empty one first."""
