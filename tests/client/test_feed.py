"""The mails of a blocking stream, between the caller's iterable and the streams of gRPC."""

from collections.abc import Iterable

from otpmail.client import OutgoingMail
from otpmail.client.feed import Feed


def test_a_feed_gives_no_mail_to_a_stream_that_has_ended() -> None:
    """Mails that the stream before took from the iterable while it ended go to the next one."""
    mails = [OutgoingMail(to="ada@example.org", request_id=each) for each in ("a", "b")]
    taken: list[str] = []

    def outgoing() -> Iterable[OutgoingMail]:
        """Begin the next stream while this one asks for mails."""
        for mail in mails:
            taken.append(mail.request_id)
            if mail.request_id == "b":
                batches.append(feed.begin())
            yield mail

    feed = Feed(outgoing())
    batches = [feed.begin()]
    assert list(batches[0]) == []
    (batch,) = batches[1]
    assert [mail.request_id for mail in batch.mails] == ["a", "b"] == taken
    assert feed.settle("a")
    assert not feed.settle("a")
    (again,) = feed.begin()
    assert [mail.request_id for mail in again.mails] == ["b"]
