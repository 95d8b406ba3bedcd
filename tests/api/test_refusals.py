"""The refused calls that observers are notified of."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from otpmail.api.parse import parse
from otpmail.api.refusals import BURST, SUMMARY_SECONDS, Refusals
from otpmail.api.status import internal_error, status_of
from otpmail.callers import CALLER, Caller
from otpmail.errors import CallerError, InvalidArgument, NotFound, Unauthenticated
from otpmail.events import ALL_EVENTS, CallRefused, CallsRefused, Event
from otpmail.v1.mail_pb2 import GetMailRequest, SendMailRequest
from otpmail.v1.otp_pb2 import SendCodeRequest


class Rig:
    """Refusals with a clock and timers of the test, and the events that they emit."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        self.now = 100.0
        self.events: list[Event] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        timer: Any = lambda seconds, act, *arguments: self.timers.append((seconds, partial(act, *arguments)))  # noqa: E731
        self.refusals = Refusals(self, now=lambda: self.now, call_later=timer)

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def refuse(
        self, error: Exception | None = None, request: Any = None, kind: Any = None, method: str = "/s/M"
    ) -> None:
        """Note one refused call."""
        error = error or NotFound("no such mail")
        status = status_of(error) if isinstance(error, CallerError) else internal_error("x")
        self.refusals.note(
            method, self, error, status=status, request=request, parse=kind and partial(parse, kind=kind)
        )

    def peer(self) -> str:
        """Return a peer as gRPC does."""
        return "ipv6:%5B::1%5D:40000"


@pytest.mark.parametrize(
    ("message", "address"),
    [
        (SendCodeRequest(email=" ada@example.org"), "ada@example.org"),
        (SendMailRequest(to=["Ada <ada@example.org>", "b@example.org"]), "Ada <ada@example.org>"),
        (SendMailRequest(bcc=["b@example.org"]), "b@example.org"),
        (SendMailRequest(), ""),
        (GetMailRequest(id="m1"), ""),
    ],
)
def test_an_event_has_what_finds_the_call(message: Any, address: str) -> None:
    """An event names method, peer, status, reason, the caller's message, and the request's first address."""
    rig = Rig()
    rig.refuse(InvalidArgument("to[0]", "is no address"), message.SerializeToString(), type(message))
    peer, told = "ipv6:[::1]:40000", "to[0]: is no address"
    assert rig.events == [CallRefused("/s/M", peer, "INVALID_ARGUMENT", "INVALID_ARGUMENT", told, address, "anonymous")]


@pytest.mark.parametrize(
    ("error", "caller"), [(NotFound("no such mail"), "shop"), (Unauthenticated("the token is not one"), "")]
)
def test_an_event_names_the_caller(error: Exception, caller: str) -> None:
    """An event names the caller, and nobody where the call did not say who it is."""
    rig = Rig()
    token = CALLER.set(Caller("shop"))
    try:
        rig.refuse(error)
    finally:
        CALLER.reset(token)
    assert [event.caller for event in rig.events if isinstance(event, CallRefused)] == [caller]


@pytest.mark.parametrize("request_", [None, b"\xff" * 20, bytes(1 << 20), SendCodeRequest(email="a@b.org"), object()])
def test_a_request_without_a_form_gives_no_address(request_: Any) -> None:
    """Octets that are no request, large ones, and streams are not searched for an address."""
    rig = Rig()
    rig.refuse(request=request_, kind=SendCodeRequest)
    assert [event.address for event in rig.events if isinstance(event, CallRefused)] == [""]


def test_a_flood_is_counted() -> None:
    """Of 10,000 refused calls in 10 s there are 10 events, then one a second, and one with the number of others."""
    rig = Rig()
    for _ in range(10_000):
        rig.refuse()
        rig.now += 0.001
    assert BURST + 9 <= len(rig.events) <= BURST + 10
    ((seconds, summarize),) = rig.timers
    assert seconds == SUMMARY_SECONDS
    told = len(rig.events)
    summarize()
    assert rig.events[-1] == CallsRefused("/s/M", "NOT_FOUND", "NOT_FOUND", 10_000 - told)
    rig.refuse()
    rig.refuse()
    assert len(rig.timers) == 2


def test_a_flood_of_one_kind_hides_no_other() -> None:
    """A method, a status and a reason have a budget of their own."""
    rig = Rig()
    for _ in range(1000):
        rig.refuse()
    rig.refuse(method="/s/Other")
    rig.refuse(InvalidArgument("x", "is wrong"))
    assert len(rig.events) == BURST + 2


def test_an_unexpected_error_has_its_own_line() -> None:
    """An error that is not meant for callers makes no event: its traceback is in the log."""
    rig = Rig()
    rig.refuse(ValueError("broken"))
    assert not rig.events
