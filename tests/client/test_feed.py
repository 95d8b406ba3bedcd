"""The mails of a blocking stream, between the caller's iterable and the streams of gRPC."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from otpmail.client import OutgoingMail
from otpmail.client.batches import MOST_TOGETHER, OpenMails
from otpmail.client.feed import Feed
from otpmail.v1 import mail_pb2


def _mail(name: str) -> OutgoingMail:
    return OutgoingMail(to="ada@example.org", request_id=name)


def _names(batch: mail_pb2.SendMailsRequest) -> list[str]:
    return [mail.request_id for mail in batch.mails]


def _given(batches: Iterator[mail_pb2.SendMailsRequest], count: int) -> list[str]:
    """Return the mails of as many batches as have so many."""
    names: list[str] = []
    while len(names) < count:
        names += _names(next(batches))
    return names


def _from(queue: "SimpleQueue[OutgoingMail | None]") -> Iterable[OutgoingMail]:
    """Yield what is put there, until None."""
    while (mail := queue.get()) is not None:
        yield mail


def test_a_mail_is_not_held_back() -> None:
    """A mail goes at once, while the iterable blocks for the next one."""
    queue: SimpleQueue[OutgoingMail | None] = SimpleQueue()
    batches = Feed(_from(queue)).begin()
    for name in ("a", "b", "c"):
        queue.put(_mail(name))
        assert _names(next(batches)) == [name]
    queue.put(None)
    assert list(batches) == []


def test_a_feed_gives_no_mail_to_a_stream_that_has_ended() -> None:
    """A stream that waits for mails gets none once the next one has begun, which gets them, and those left open."""
    queue: SimpleQueue[OutgoingMail | None] = SimpleQueue()
    feed = Feed(_from(queue))
    first = feed.begin()
    queue.put(_mail("a"))
    assert _names(next(first)) == ["a"]
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(list, first)
        second = feed.begin()
        assert rest.result(10) == []
    queue.put(_mail("b"))
    queue.put(None)
    assert _given(second, 2) == ["a", "b"]
    assert feed.settle("a")
    assert not feed.settle("a")
    assert list(second) == []
    assert (feed.all_taken, feed.is_done) == (True, False)
    (again,) = feed.begin()
    assert _names(again) == ["b"]
    assert feed.settle("b")
    assert feed.is_done


@pytest.mark.parametrize(("is_refusal", "left"), [(False, ["b", "second"]), (True, ["first", "b"])])
def test_two_mails_with_one_name(is_refusal: bool, left: list[str]) -> None:  # noqa: FBT001  a parameter
    """An outcome settles the first mail of a name, a refusal the last. The others keep the order of sending."""
    opened = OpenMails()
    opened.add([mail_pb2.SendMailRequest(request_id="a", subject="first"), mail_pb2.SendMailRequest(request_id="b")])
    opened.add([mail_pb2.SendMailRequest(request_id="a", subject="second")])

    def names() -> list[str]:
        """Return the open mails."""
        return [mail.subject or mail.request_id for mail in opened.all()]

    assert names() == ["first", "b", "second"]
    assert opened.request_ids() == ["a", "b", "a"]
    assert opened.settle("a", is_refusal=is_refusal)
    assert names() == left
    assert len(opened) == 2
    assert opened.settle("a")
    assert not opened.settle("a")
    assert names() == ["b"]


def test_mails_are_taken_as_they_are_sent() -> None:
    """The iterable is asked for a batch more than is sent, and a mail that waits to become ready; all go in order."""
    taken: list[str] = []
    reached = threading.Event()

    def outgoing() -> Iterable[OutgoingMail]:
        """Yield many mails, and tell when as many as may wait are taken."""
        for number in range(5 * MOST_TOGETHER):
            taken.append(str(number))
            if number == MOST_TOGETHER:
                reached.set()
            yield _mail(str(number))

    feed = Feed(outgoing())
    batches = feed.begin()
    assert reached.wait(10)
    assert not feed.all_taken
    assert len(taken) == MOST_TOGETHER + 1
    assert _given(batches, 5 * MOST_TOGETHER) == [str(number) for number in range(5 * MOST_TOGETHER)]


@pytest.mark.parametrize("blocked", [True, False])
def test_a_feed_that_is_closed(blocked: bool) -> None:  # noqa: FBT001  a parameter
    """`close` ends the stream that waits for mails, and the thread, also one that waits for room."""
    queue: SimpleQueue[OutgoingMail | None] = SimpleQueue()
    before = set(threading.enumerate())
    feed = Feed(_from(queue) if blocked else (_mail(str(number)) for number in range(1000)))
    batches = feed.begin()
    feed.close()
    queue.put(_mail("late"))
    assert list(batches) == []
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_an_error_of_the_iterable() -> None:
    """Mails before an error are sent, and the error is kept, also one that would end a thread silently."""

    def outgoing() -> Iterable[OutgoingMail]:
        """End the program after a mail."""
        yield _mail("a")
        raise SystemExit(3)

    feed = Feed(outgoing())
    assert [_names(batch) for batch in feed.begin()] == [["a"]]
    assert isinstance(feed.error, SystemExit)
