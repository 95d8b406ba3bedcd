"""The watchdog: when a connection is ended for a relay that does not reply. The clock and the timers are the test's."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from otpmail.model import Envelope
from otpmail.relays.timeouts import Timeouts
from otpmail.relays.watchdog import Watchdog
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.mode import Mode
from otpmail.smtp.session import Session
from relays.timer import Timer

OK = b"250 ok\r\n"
TIMEOUT, COMMAND_TIMEOUT, FINAL_TIMEOUT, GOODBYE = 30.0, 300.0, 600.0, 2.0


@dataclass
class Rig:
    """A watchdog over a session with one mail, and the time that passes."""

    session: Session
    now: float = 1000.0
    unacknowledged: float = 0.0
    looks: int = 0
    ended: str = ""
    timers: list[Timer] = field(default_factory=list)
    watchdog: Watchdog = field(init=False)

    def __post_init__(self) -> None:
        """Make the watchdog."""
        self.watchdog = Watchdog(
            self.session,
            timeouts=Timeouts(TIMEOUT, COMMAND_TIMEOUT, FINAL_TIMEOUT),
            goodbye_seconds=GOODBYE,
            unacknowledged=self.look,
            end=partial(setattr, self, "ended"),
            clock=lambda: self.now,
            call_later=self.call_later,
        )

    def look(self) -> float:
        """Count, and return for how long nothing was acknowledged."""
        self.looks += 1
        return self.unacknowledged

    def call_later(self, seconds: float, ring: Callable[[], None]) -> Timer:
        """Set a timer."""
        self.timers.append(Timer(self.now + seconds, ring))
        return self.timers[-1]

    def send(self, content: bytes = b"content\r\n") -> None:
        """Begin a mail and write all that may be written."""
        self.session.begin(Envelope("a@x.org", ("b@y.org",), content))
        self.session.take(1 << 20)
        self.watchdog.last_progress = self.now
        self.watchdog.wake()

    def reply(self, replies: bytes) -> None:
        """Have the relay reply now, and write what may follow."""
        self.session.receive(replies)
        self.session.take(1 << 20)
        self.watchdog.last_progress = self.now

    def ring(self) -> float:
        """Let the time pass until the only timer rings; return how many seconds that took."""
        (timer,) = (timer for timer in self.timers if not timer.cancelled)
        seconds, self.now = timer.at - self.now, timer.at
        self.timers.clear()
        timer.ring()
        return seconds


def _rig(mode: Mode = Mode.BDAT) -> Rig:
    return Rig(Session(Capabilities({"PIPELINING": "", "CHUNKING": ""}), mode, window=16))


@pytest.mark.parametrize(("replied", "seconds"), [(0, 300.0), (1, 300.0), (2, 120.0), (3, 600.0), (4, 30.0)])
def test_each_command_has_the_time_that_its_rfc_gives_it(replied: int, seconds: float) -> None:
    """MAIL and RCPT may take 5 minutes, DATA 2, a content 10 (RFC 5321, 4.5.3.2), and RSET what a step may take."""
    rig = _rig(Mode.DATA)
    rig.send()
    for reply in (OK, OK, b"354 go\r\n", OK)[:replied]:
        rig.reply(reply)
    waited = 0.0
    while not rig.ended:
        waited += rig.ring()
    assert (waited, rig.ended) == (seconds, f"no answer within {seconds:g} s")
    assert not rig.watchdog.is_awake


def test_a_relay_that_reads_no_further_has_three_minutes() -> None:
    """A block of a content may take 3 minutes (RFC 5321, 4.5.3.2.5)."""
    rig = _rig(Mode.DATA)
    rig.send(content=b"x" * 300_000)
    rig.session.receive(OK + OK + b"354 go\r\n")
    rig.session.take(1000)
    assert sum(rig.ring() for _ in range(6)) == pytest.approx(180.0)
    assert rig.ended == "no answer within 180 s"


def test_by_bdat_every_reply_has_the_time_of_the_content() -> None:
    """EMAIL_FINAL_TIMEOUT holds for a mail whose whole content the relay has."""
    rig = _rig()
    rig.send()
    assert sum(rig.ring() for _ in range(20)) == FINAL_TIMEOUT
    assert rig.ended == "no answer within 600 s"


def test_the_shorter_timeout_holds_again_after_the_longer_one() -> None:
    """A final reply that took long gives the commands behind it no more than their own time."""
    rig = _rig(Mode.DATA)
    rig.send()
    rig.reply(OK + OK + b"354 go\r\n")
    rig.send()
    assert [rig.ring() for _ in range(3)] == [TIMEOUT] * 3
    rig.reply(OK + OK)
    assert sum(rig.ring() for _ in range(10)) == COMMAND_TIMEOUT
    assert rig.ended == "no answer within 300 s"


def test_progress_moves_the_end_and_no_timer() -> None:
    """Progress moves the timeout but not the timer, which is set for the rest of the time when it fires."""
    rig = _rig(Mode.DATA)
    rig.send()
    rig.now += 20.0
    rig.reply(OK)
    assert len(rig.timers) == 1
    assert rig.ring() == 10.0
    assert sum(rig.ring() for _ in range(10)) == 290.0
    assert rig.ended


def test_a_relay_that_owes_nothing_is_not_watched() -> None:
    """The watchdog sets no further timer while the relay owes no reply, until the next mail."""
    rig = _rig()
    rig.send()
    rig.reply(OK * 4)
    rig.ring()
    assert (rig.timers, rig.ended, rig.watchdog.is_awake) == ([], "", False)
    rig.watchdog.wake()
    assert not rig.watchdog.is_awake
    rig.send()
    assert rig.watchdog.is_awake


def test_a_machine_that_acknowledges_nothing_at_two_looks_is_gone() -> None:
    """A connection ends, long before the final timeout, if two looks in a row find nothing acknowledged."""
    rig = _rig()
    rig.send()
    for seconds in (TIMEOUT, 0.0, TIMEOUT):
        rig.unacknowledged = seconds
        rig.ring()
    assert rig.watchdog.is_awake
    rig.ring()
    assert rig.ended == "the relay's machine acknowledges nothing any more"


def test_looks_with_nothing_owed_between_them_are_not_in_a_row() -> None:
    """Two looks are not in a row if the relay owed no reply at a look between them."""
    rig = _rig()
    rig.unacknowledged = TIMEOUT
    rig.send()
    rig.ring()
    rig.reply(OK * 4)
    rig.ring()
    assert rig.looks == 1, "nothing was owed the second time"
    rig.send()
    rig.ring()
    assert (rig.looks, rig.ended) == (2, "")
    rig.ring()
    assert rig.ended


@pytest.mark.parametrize("closes", [True, False])
def test_after_a_goodbye_the_relay_has_two_seconds_to_close(closes: bool) -> None:  # noqa: FBT001
    """A relay has two seconds to close after 421, and the mail behind it is uncertain if it does not."""
    rig = _rig()
    rig.send()
    rig.reply(b"421 bye\r\n")
    rig.watchdog.await_close()
    if closes:
        rig.watchdog.stop()
        assert rig.timers[-1].cancelled
    else:
        assert rig.ring() == GOODBYE
        assert rig.ended == "the relay said: 421 bye"
