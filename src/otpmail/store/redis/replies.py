"""Judges the errors of a server: for callers, and for the connection that they came over."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as NetworkError
from redis.exceptions import RedisError

from otpmail.errors import StoreError, Unavailable

RETRY_SECONDS = 1.0
"""After how long a caller may try again what the server did not take."""

PAUSE_SECONDS = 0.25
"""How long this replica waits before it tries again itself."""

NO_REDIS = "answers, but not as Redis or Valkey do"

# By the first word of the reply. Redis 6.2 wraps what a command of a script replied in words of its own.
_WORDS = {
    "LOADING": "is reading its data",
    "READONLY": "is a replica, and takes no changes",
    "OOM": "has no memory left (maxmemory)",
    "BUSY": "is busy with a script that takes long",
    "MISCONF": "can't write its data to the disk",
    "NOREPLICAS": "has too few replicas (min-replicas-to-write)",
    "MASTERDOWN": "has lost its master",
    "CLUSTERDOWN": "is part of a cluster that is down",
    "TRYAGAIN": "is moving our keys to another server",
    "MOVED": "has handed our keys to another server",
    "ASK": "is moving our keys to another server",
    "NOAUTH": "wants a password: set STORE_PASSWORD_FILE",
    "WRONGPASS": "refuses the user or the password of STORE_URL",
    "NOPERM": "does not let the user of STORE_URL do this",
    "UNBLOCKED": "has become a replica",
}
_WRAPPED = (
    ("-OOM ", "OOM"),
    ("command not allowed when used memory > 'maxmemory'", "OOM"),
    ("can't write against a read only", "READONLY"),
    ("-READONLY ", "READONLY"),
    ("-MISCONF ", "MISCONF"),
    ("-NOREPLICAS ", "NOREPLICAS"),
    ("-LOADING ", "LOADING"),
    ("-NOPERM ", "NOPERM"),
    ("can't run this command or subcommand", "NOPERM"),
    ("can't access at least one of the keys", "NOPERM"),
    ("can't access at least one of the channels", "NOPERM"),
    ("max number of clients reached", "CLIENTS"),
    ("invalid password", "WRONGPASS"),
    ("without any password configured", "NOPASS"),
)
_MORE_WORDS = {
    "CLIENTS": "has no connection left (maxclients)",
    "NOPASS": "knows no password, but STORE_URL or STORE_PASSWORD_FILE has one",
}

# By a part of the reply, where STORE_URL leads to a server that can't do what is asked, or not yet. Redis 6.2 quotes in
# backticks, which are read as apostrophes.
_OTHER_SERVERS = (
    ("DB index is out of range", "has no database of the number in STORE_URL"),
    ("unknown command 'SENTINEL'", "is no Sentinel; for a server of its own write redis://"),
    ("cluster support disabled", "is part of no cluster; write redis://"),
    ("protected mode is enabled", "is in protected mode; set requirepass there, and STORE_PASSWORD_FILE here"),
    ("Protocol Error", NO_REDIS),
)
_LONGEST = 200
_RIGHTS = "; docs/stores.md has the rights that it needs"

# redis-py repeats the server before the cause, which may be missing.
_CONNECTING = re.compile(r"^Error \S+ connecting to \S+\. |^Error connecting to \S+$")
_READING = re.compile(r"^Error while reading from \S+ : \(\d+, '(.*)'\)$")
_VERIFY = re.compile(r"certificate verify failed: (.*?)(?: \(_ssl\.c:\d+\))?$")

MOVES = frozenset({"READONLY", "MOVED", "ASK", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED", "LOADING"})
"""Kinds of replies after which the master may be another server than before."""

_FULL = frozenset({"OOM", "NOREPLICAS", "MISCONF"})  # the server takes nothing new, and drops what is to be dropped
_OF_ONE_COMMAND = frozenset({"NOPERM", "TRYAGAIN", "NOSCRIPT", ""})


def pairs(reply: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Return the places and values of a reply that has them in turn: of what needs saying alone."""
    return zip(reply[::2], reply[1::2], strict=True)


class AnswerLost(Unavailable):
    """The connection ended before the reply: the command may have run. To run it again must be idempotent."""


class StoreRefuses(Unavailable):
    """The server has replied that it can't run the command; nothing was changed. `kind` is the reply's first word."""

    def __init__(self, description: str, *, kind: str) -> None:
        super().__init__(description, retry_after=RETRY_SECONDS)
        self.kind = kind


def kind_of(error: RedisError) -> str:
    """Return the first word of a reply that is an error, or the kind that its text means; empty for other errors."""
    text = str(error)
    for part, kind in _WRAPPED:
        if part in text:
            return kind
    word = error.status_code or text.partition(" ")[0]
    return word if word in _WORDS or word == "NOSCRIPT" else ""


def is_reply(error: RedisError) -> bool:
    """Whether a server has replied this, so that further replies can be read; otherwise the connection failed."""
    return not isinstance(error, NetworkError) or error.status_code is not None


def is_fault(error: RedisError) -> bool:
    """Whether a reply is about the server, and no other command that writes would do better."""
    return not is_reply(error) or kind_of(error) not in _OF_ONE_COMMAND


class Fault(NamedTuple):
    """Why a server takes no changes, as a line for the log.

    `is_away`: no command at all would do better. A server without memory still drops what is to be dropped.
    """

    problem: str
    is_away: bool


def fault(error: RedisError | OSError | TimeoutError, endpoint: str) -> Fault:
    """Return what an error says of a server, be it a reply or a lost connection."""
    is_full = isinstance(error, RedisError) and is_reply(error) and kind_of(error) in _FULL
    return Fault(describe(error, endpoint), is_away=not is_full)


def describe(error: RedisError | OSError | TimeoutError, endpoint: str) -> str:
    """Say in a line that opens with STORE_URL what is wrong with a server. It shows no password."""
    if not isinstance(error, RedisError) or not is_reply(error):
        words = f"can't be reached: {_of_connection(str(error))}"
    else:
        kind, text = kind_of(error), str(error)
        quoted = text.replace("`", "'")
        of_another = next((words for part, words in _OTHER_SERVERS if part in quoted), None)
        words = _MORE_WORDS.get(kind) or _WORDS.get(kind) or of_another or _shortened(text)
        words += _RIGHTS if kind == "NOPERM" else ""
    return f"STORE_URL: the server at {endpoint} {words}"


def tls_hint(error: Exception, *, has_tls: bool) -> str:
    """Return what to change where one side of a failed connection may speak TLS and the other does not."""
    if isinstance(error, RedisError) and is_reply(error):
        return ""
    text = str(error)
    if has_tls and (isinstance(error, TimeoutError) or "WRONG_VERSION_NUMBER" in text or _READING.match(text)):
        return "; if its port speaks no TLS, write redis in place of rediss"
    if not has_tls and (_READING.match(text) or "closed by server" in text):
        return "; if its port speaks TLS, write rediss in place of redis"
    return ""


def _shortened(text: str) -> str:
    """Return words of the server in one line, which is not too long for a log."""
    return " ".join(text.split())[:_LONGEST].rstrip(".")


def _of_connection(text: str) -> str:
    """Say why there is no connection, without what stands before it in the line."""
    if found := _READING.match(text):
        return found[1]
    detail = _CONNECTING.sub("", text).rstrip(".")
    return _of_certificate(detail) or detail or "it did not answer in time"


def _of_certificate(detail: str) -> str:
    """Say what to set where TLS does not trust the server; empty for other failures."""
    found = _VERIFY.search(detail)
    if found is None:
        return ""
    name = "STORE_TLS_NAME" if "mismatch" in found[1] else "STORE_CA_FILE"
    return f"its certificate is not trusted ({found[1].rstrip(' .')}); see {name}"


def unavailable(error: RedisError, endpoint: str) -> Exception:
    """Return what a caller gets for a reply that is an error: Unavailable where the server may recover from it."""
    kind = kind_of(error)
    if kind:
        return StoreRefuses(f"the store {_MORE_WORDS.get(kind) or _WORDS.get(kind, 'failed')}", kind=kind)
    return StoreError(describe(error, endpoint))
