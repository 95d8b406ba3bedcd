"""The last pause of a connection: whether it was closed for it, and whether a goodbye crossed a mail."""

import pytest

from otpmail.relays.pause import Pause


def _busy(seconds: float, replies: int) -> Pause:
    """Return the pause of a connection that has a mail in flight after that time."""
    pause = Pause(idle_seconds=0.2)
    pause.seconds, pause.replies = seconds, replies
    return pause


@pytest.mark.parametrize(
    ("seconds", "replies", "crossed"), [(10.0, 7, True), (10.0, 8, True), (10.0, 9, False), (0.1, 8, False)]
)
def test_a_goodbye_crosses_the_first_mail_after_a_pause(seconds: float, replies: int, crossed: bool) -> None:  # noqa: FBT001
    """A goodbye may have crossed the mail after a pause, if there was no reply since but the goodbye itself."""
    assert _busy(seconds, replies=7).is_crossed(replies) is crossed


def test_a_close_after_a_pause_is_for_idleness() -> None:
    """The time without a mail is kept, and the relay did not end it over its mails."""
    pause = Pause(idle_seconds=0.2)
    assert not pause.end(3, 10.0, in_flight=False)
    assert pause.at_end == 10.0


def test_a_close_right_after_a_reply_is_over_the_mails() -> None:
    """A relay that closes after so many mails does so at once."""
    pause = Pause(idle_seconds=0.2)
    assert pause.end(3, 0.1, in_flight=False)
    assert pause.at_end is None


@pytest.mark.parametrize(("replies", "over_mails"), [(4, False), (8, True)])
def test_a_close_with_mails_in_flight(replies: int, over_mails: bool) -> None:  # noqa: FBT001
    """A close amid mails tells no idle time, and counts as over them unless it may have crossed the first one."""
    pause = _busy(10.0, replies=3)
    assert pause.end(replies, 0.05, in_flight=True) is over_mails
    assert pause.at_end is None
