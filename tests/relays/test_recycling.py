"""Connections that a relay ends after so many mails, over real sockets: nothing is lost, and the limit is learned."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from otpmail.events import Event, MessageLimitDropped, MessageLimitLearned
from otpmail.model import Envelope
from otpmail.relays.message_limit import Bounds
from otpmail.relays.recycling import Lead, Recycling
from otpmail.relays.relay import Relay
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode
from otpmail.smtp.transaction import GROUP
from outcomes import outcome_of
from relay import HOST, Certificates, Faults
from relay import Relay as Server
from sending import Sending

WORKERS = 2
MODES = {
    Mode.BDAT: Faults(auth=()),
    Mode.DATA: Faults(auth=(), chunking=False),
    Mode.PLAIN: Faults(auth=(), pipelining=False),
}


class Noted(list[Event]):
    """An observer that keeps the events."""

    event_types: frozenset[type[Event]] = frozenset({MessageLimitLearned, MessageLimitDropped})

    def notify(self, event: Event) -> None:
        """Keep it, if it is about a limit."""
        if type(event) in self.event_types:
            self.append(event)


def _relay(server: Server, noted: Noted, **more: object) -> Relay:
    make: Callable[..., RelaySettings] = RelaySettings
    fields: dict[str, object] = {"host": HOST, "port": server.port, "security": "plain", "helo": "test", **more}
    return Relay(make(**fields), noted, workers=5, random=lambda: 0.5)


def _each_once(server: Server, sending: Sending) -> None:
    """Every mail has arrived, and more than once only if a connection left it uncertain."""
    arrived = Counter(int(mail.recipients[0][1:].partition("@")[0]) for mail in server.mails)
    assert sending.taken <= arrived.keys()
    doubled = {number for number, times in arrived.items() if times > 1}
    assert doubled <= sending.uncertain


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("silently", [False, True], ids=["421", "closes"])
@pytest.mark.parametrize(("after", "mails"), [(1, 40), (10, 200), (100, 1000)])
async def test_a_limit_is_learned_and_kept_to(mode: Mode, silently: bool, after: int, mails: int) -> None:  # noqa: FBT001
    """Once the relay has ended two connections in a row at the same count, it ends none any more."""
    noted = Noted()
    async with Server(replace(MODES[mode], close_after=after, closes_silently=silently)) as server:
        relay = _relay(server, noted)
        sending = await Sending.run(relay, range(mails), workers=WORKERS)
        assert sending.taken == set(range(mails))
        _each_once(server, sending)
        assert noted == [MessageLimitLearned(relay.name, after)]
        assert len(sending.ended) <= 2 * WORKERS
        assert max(Counter(mail.connection for mail in server.mails).values()) == after
        before = len(server.mails)
        again = await Sending.run(relay, range(mails), workers=WORKERS)
        assert (again.losses, again.ended) == (0, [])
        assert len(server.mails) == before + mails


@pytest.mark.parametrize("silently", [False, True], ids=["421", "closes"])
@pytest.mark.parametrize(("after", "mails"), [(1, 40), (10, 200), (100, 1000)])
async def test_a_limit_is_learned_over_tls(
    certificates: Certificates,
    silently: bool,  # noqa: FBT001
    after: int,
    mails: int,
) -> None:
    """The relay closes with mails unread, which resets the connection and may destroy answers on their way."""
    noted = Noted()
    faults = replace(MODES[Mode.BDAT], security="tls", close_after=after, closes_silently=silently)
    async with Server(faults, certificates=certificates) as server:
        relay = _relay(server, noted, security="tls", ca_file=certificates.ca_file, retry_seconds=0.01)
        sending = await Sending.run(relay, range(mails), workers=WORKERS)
        _each_once(server, sending)
        assert noted == [MessageLimitLearned(relay.name, after)]
        again = await Sending.run(relay, range(mails), workers=WORKERS)
        assert (again.losses, again.ended) == (0, [])


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("silently", [False, True], ids=["421", "closes"])
async def test_a_relay_that_closes_at_random(mode: Mode, silently: bool) -> None:  # noqa: FBT001
    """No mail is lost over a relay that closes at random, and a limit is learned only from ends that suggest it."""
    async with Server(replace(MODES[mode], close_by_chance=0.1, closes_silently=silently)) as server:
        sending = await Sending.run(_relay(server, Noted()), range(300), workers=WORKERS)
        assert sending.taken == set(range(300))
        _each_once(server, sending)
        assert sending.ended


@pytest.mark.parametrize("mode", list(Mode))
async def test_an_announced_limit_is_kept_to(mode: Mode) -> None:
    """Connections keep to MAILMAX (RFC 9422): the relay never has to say 421, and no limit is learned."""
    noted = Noted()
    async with Server(replace(MODES[mode], mail_max=10)) as server:
        sending = await Sending.run(_relay(server, noted), range(200), workers=WORKERS)
        assert (sending.losses, sending.ended, noted) == (0, [], [])
        # A successor that is connected sooner takes over a mail before the limit, as with asyncio in Python 3.13.
        assert max(Counter(mail.connection for mail in server.mails).values()) in {9, 10}


async def test_the_setting_caps_what_is_announced() -> None:
    """EMAIL_MAX_MESSAGES caps the announced limit if it is the smaller number."""
    async with Server(replace(MODES[Mode.BDAT], mail_max=10)) as server:
        await Sending.run(_relay(server, Noted(), max_messages=4), range(40), workers=WORKERS)
        assert max(Counter(mail.connection for mail in server.mails).values()) == 4


@pytest.mark.parametrize("rcpt_max", [None, 2])
async def test_a_mail_goes_to_as_many_as_the_relay_takes_at_once(rcpt_max: int | None) -> None:
    """A transaction has at most RCPTMAX (RFC 9422) and GROUP recipients, and its results are for those alone."""
    async with Server(Faults(auth=(), rcpt_max=rcpt_max)) as server:
        connection = await _relay(server, Noted()).connect()
        people = tuple(f"p{n}@y.org" for n in range(GROUP + 1))
        results = await outcome_of(connection, Envelope("a@x.org", people, b"\r\n"))
        assert [result.address for result in results] == list(people[: rcpt_max or GROUP])
        assert all(result.accepted for result in results)
        await connection.close()


# The connections of a relay share it. No sockets from here on.


@dataclass(eq=False)
class Carrier:
    """As much of a connection as recycling looks at."""

    most: int = 100
    lead: int = 16
    succeeded_at: int | None = None
    carried: int = 0
    answered: int = 0
    lost_in_flight: int = 0
    begun: float = 0.0
    hung_up: bool = False
    lost_cause: str = ""
    bounds: Bounds | None = None

    def limit(self, bounds: Bounds, lead: int | None) -> None:
        """Keep both."""
        self.bounds = bounds
        self.lead = min(lead or self.lead, self.most - 1)


def test_a_successor_that_came_too_late_is_dialled_sooner() -> None:
    """The lead grows by half each time that a connection has carried its last mail before its successor opened."""
    lead, leads = Lead(), []
    carrier = Carrier(carried=100)
    for _ in range(6):
        lead.replaced(carrier)
        carrier.limit(Bounds(), lead.mails)
        leads.append(carrier.lead)
    assert leads == [25, 38, 58, 88, 99, 99]


def test_a_successor_that_came_too_early_is_dialled_later() -> None:
    """The lead shrinks by an eighth each time, to an eighth more than went during the dial, and at least one mail."""
    lead, leads = Lead(), []
    carrier = Carrier(lead=64)
    for _ in range(5):
        carrier.carried = carrier.most - carrier.lead + 36  # so many go meanwhile
        lead.replaced(carrier)
        carrier.limit(Bounds(), lead.mails)
        leads.append(carrier.lead)
    assert leads == [56, 49, 42, 40, 40]
    for _ in range(30):
        carrier.carried = carrier.most - carrier.lead
        lead.replaced(carrier)
        carrier.limit(Bounds(), lead.mails)
    assert carrier.lead == 1


def test_what_a_connection_carries_beside_its_open_successor_does_not_count() -> None:
    """A busy connection is used up each time, and its successor is dialled no sooner for that."""
    lead, carrier = Lead(), Carrier(carried=100, lead=64)
    for _ in range(30):
        carrier.succeeded_at = carrier.most - carrier.lead + 36
        lead.replaced(carrier)
        carrier.limit(Bounds(), lead.mails)
    assert carrier.lead == 40


def test_a_connection_replaced_for_another_reason_says_nothing_of_the_lead() -> None:
    """A connection replaced for its age, or because it was lost, leaves the lead unchanged."""
    lead = Lead()
    lead.replaced(Carrier(carried=20))
    lead.replaced(Carrier(carried=100, lost_cause="connection lost"))
    assert lead.mails is None


@pytest.fixture
def noted() -> Noted:
    """Return an observer that has noted nothing."""
    return Noted()


def _hang_up(recycling: Recycling, carrier: Carrier, mails: int) -> None:
    carrier.carried = carrier.answered = mails
    carrier.hung_up, carrier.lost_cause = True, "421"
    recycling.released(carrier)
    recycling.closed(carrier)


def _open(recycling: Recycling, now: float) -> Carrier:
    carrier = Carrier(begun=now)
    recycling.opened(carrier)
    return carrier


def test_what_is_learned_holds_for_all_connections(noted: Noted) -> None:
    """A learned limit holds for connections that are open and those to come, and is notified once."""
    now = 0.0
    recycling = Recycling("r:25", noted, now=lambda: now)
    first, other = _open(recycling, now), _open(recycling, now)
    now = 10.0
    _hang_up(recycling, first, 20)
    assert other.bounds == Bounds(careful=range(19, 23))
    second = _open(recycling, now)
    now = 20.0
    _hang_up(recycling, second, 20)
    assert other.bounds == _open(recycling, now).bounds == Bounds(20)
    assert noted == [MessageLimitLearned("r:25", 20)]


def test_an_open_connection_that_carried_more_refutes_it(noted: Noted) -> None:
    """Two ends at the same count are no limit while a third connection is far beyond it."""
    recycling = Recycling("r:25", noted, now=lambda: 0.0)
    far = _open(recycling, 0.0)
    far.answered = 1000
    for _ in range(3):
        _hang_up(recycling, _open(recycling, 0.0), 3)
    assert far.bounds == Bounds()
    assert noted == []


@pytest.mark.parametrize("how", ["open", "closed"])
def test_a_wrong_limit_is_dropped_by_the_connection_that_goes_on(noted: Noted, how: str) -> None:
    """A reviewing connection that goes past the limit makes all others drop it, at its close or the next dial."""
    now = 0.0
    recycling = Recycling("r:25", noted, now=lambda: now)
    for _ in range(2):
        _hang_up(recycling, _open(recycling, now), 3)
    now = 60.0
    reviewing, other = _open(recycling, now), _open(recycling, now)
    assert (reviewing.bounds, other.bounds) == (Bounds(careful=range(3, 5)), Bounds(3))
    reviewing.answered = 4
    if how == "closed":
        recycling.released(reviewing)
        recycling.closed(reviewing)
    else:
        _open(recycling, now)
    assert other.bounds == Bounds()
    assert noted == [MessageLimitLearned("r:25", 3), MessageLimitDropped("r:25", 3)]
