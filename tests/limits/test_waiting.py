"""Streams that wait for a place: one of each source after the other, and none for ever behind one that may not go."""

from collections.abc import Callable
from functools import partial

from otpmail.limits.waiting import Waiting


def _is_not_among(source: str, refused: str) -> bool:
    return source not in refused


def _waiting(*names: str, refused: str = "") -> tuple[Waiting, list[str], dict[str, Callable[[], None]]]:
    """Return streams that wait, of the source in their first letter; those of the sources in `refused` may not go."""
    waiting, called = Waiting(), list[str]()
    callbacks: dict[str, Callable[[], None]] = {name: partial(called.append, name) for name in names}
    for name, callback in callbacks.items():
        waiting.add(name[0], callback, partial(_is_not_among, name[0], refused))
    return waiting, called, callbacks


def test_sources_take_turns() -> None:
    """One stream of each source is called after the other, each source's streams in their order."""
    waiting, called, _ = _waiting("a1", "a2", "a3", "b1", "c1")
    for _ in range(6):
        waiting.call_next()
    assert called == ["a1", "b1", "c1", "a2", "a3"]
    assert repr(waiting) == "<Waiting 0 streams of 0 sources>"


def test_who_may_not_go_is_passed_over() -> None:
    """A source with more than its share is passed over and goes on waiting."""
    waiting, called, _ = _waiting("a1", "b1", refused="a")
    for _ in range(3):
        waiting.call_next()
    assert called == ["b1"]
    assert repr(waiting) == "<Waiting 1 streams of 1 sources>"


def test_few_are_asked() -> None:
    """A place that nobody may take costs a few questions, however many wait, and the next one asks others."""
    waiting, called, _ = _waiting(*"abcdefgh", refused="abcde")
    waiting.call_next()
    assert called == []
    waiting.call_next()
    assert called == ["f"]


def test_a_stream_that_has_gone() -> None:
    """A stream that was discarded is not called, and `discard` says whether it had been called before."""
    waiting, called, callbacks = _waiting("a1", "a2")
    waiting.call_next()
    assert not waiting.discard("a", callbacks["a1"])
    assert waiting.discard("a", callbacks["a2"])
    assert not waiting.discard("a", callbacks["a2"])
    waiting.call_next()
    assert called == ["a1"]
