"""Errors of the client as other programs hold them: copied, pickled by a pool of processes, shown in a log."""

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from otpmail.client import Error, Mail, RecipientResult, State, errors

_NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
_RECIPIENT = RecipientResult("ada@example.org", 550, "5.1.1", "no such user", None)
_MAIL = Mail("id", State.FAILED, (_RECIPIENT,), 1, _NOW, _NOW, None, "<id@example.org>", "", {"a": "b"}, "")


def _all(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all(below)


_FIELDS: Mapping[type[Error], tuple[tuple[object, ...], Mapping[str, object]]] = {
    errors.Refused: ((_MAIL, _RECIPIENT), {}),
    errors.Suppressed: ((_MAIL,), {"reason": "550", "until": _NOW}),
    errors.NotSent: ((_MAIL,), {}),
    errors.InvalidRequest: ((), {"field": "email", "description": "is wrong"}),
    errors.TooSoon: ((), {"retry_after": 2.5, "limit": "OTP_SENDS_PER_HOUR", "subject": "address"}),
    errors.Unavailable: ((), {"retry_after": 2.5}),
    errors.TimedOut: ((), {"mail_id": "id"}),
    errors.ServiceError: ((), {"error_id": "id"}),
    errors.WrongCode: ((), {"attempts_left": 3}),
    errors.TooManyAttempts: ((), {"retry_time": datetime.now(UTC) + timedelta(seconds=900)}),
}
"""What the constructor of a kind, and of those below it, takes beside the text."""


def _made(kind: type[Error]) -> Error:
    """Return an error with a value in each of its fields."""
    more, named = next((found for above, found in _FIELDS.items() if issubclass(kind, above)), ((), {}))
    return kind("text", *more, **named)


class _Own(errors.RelayDown):
    """An error of a program, below one of the client, with a constructor of its own."""

    def __init__(self, relay: str, *, since: datetime) -> None:
        super().__init__(f"{relay} is down", retry_after=7)
        self.since = since


def _pickled(error: Error) -> Error:
    found = pickle.loads(pickle.dumps(error))
    assert isinstance(found, Error)
    return found


_KINDS = sorted(set(_all(Error)) - {_Own}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, _pickled])
@pytest.mark.parametrize("kind", [*_KINDS, _Own], ids=lambda kind: kind.__name__)
def test_an_error_can_be_copied(kind: type[Error], copied: Callable[[Error], Error]) -> None:
    """A copy of an error has its type, its text, its notes and each of its fields."""
    error = _Own("relay", since=_NOW) if kind is _Own else _made(kind)
    error.add_note("seen by a worker")
    found = copied(error)
    assert type(found) is kind
    assert (str(found), repr(found), found.args) == (str(error), repr(error), error.args)
    assert vars(found) == vars(error)
    assert (found.retry_after, found.http_status) == (error.retry_after, error.http_status)


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
def test_the_text_of_an_error(kind: type[Error]) -> None:
    """An error shows its text to a log, and its name where it is shown as a value."""
    error = _made(kind)
    assert str(error).startswith("text")
    assert repr(error) == f"{kind.__name__}({str(error)!r})"
