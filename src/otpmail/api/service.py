"""Builds what every door shares: the methods in their guard, who may call them, and what is being read."""

import asyncio

from otpmail.api.access import Access
from otpmail.api.address import AddressServicer
from otpmail.api.auth import Admit
from otpmail.api.batching import MOST_SECONDS, Batching
from otpmail.api.bounds import bounds_of_mail, bounds_of_original_mail
from otpmail.api.calls import CallEnded, Ended
from otpmail.api.guard import Guard
from otpmail.api.mail import MailServicer
from otpmail.api.methods import CHECK, SERVICES
from otpmail.api.otp import OtpServicer
from otpmail.api.parse import parsers
from otpmail.api.reads import Reads
from otpmail.api.refusals import Refusals
from otpmail.events import Observer
from otpmail.mail.service import MailService
from otpmail.otp.service import OtpService
from otpmail.settings import ServerSettings

_MOMENT = 0.02
_QUIET_MOMENTS = 5  # in which callers that had an answer have made their next call
_MOST_MOMENTS = 25


class Api:
    """The use cases as methods, for all doors.

    A request has at most `most_octets`. `batch_seconds` is the longest that unary calls are held back under load
    (`api.batching`). The `observer` is notified of refused calls. Doors raise the errors in `ended` to end a running
    call. `access` says who may call. Raises SettingsError for a file of callers or of TLS that can't be used.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        codes: OtpService,
        mails: MailService,
        observer: Observer,
        most_octets: int,
        most_unsettled: int,
        ended: Ended = CallEnded,
        batch_seconds: float = MOST_SECONDS,
    ) -> None:
        self.codes, self.mails = codes, mails
        self.most_octets = most_octets
        self.asks_callers, self.takes_tokens = settings.asks_callers, settings.callers_file is not None
        self.access = Access(settings, observer, codes.profiles)
        self.memory = mails.admission.memory
        self.reads = Reads(self.memory, most_octets=most_octets, ended=ended)
        bounds = (bounds_of_mail(mails.limits), bounds_of_original_mail(mails.limits))
        self._parsers, self._refused = parsers(SERVICES, bounds), Refusals(observer).note
        authenticator = self.access.authenticator
        self._admit = None if authenticator is None else authenticator.admit
        self._admit_anybody = None if authenticator is None else authenticator.admit_anybody
        self.guard = Guard(
            Batching(most_seconds=batch_seconds),
            self._parsers,
            self.reads,
            mails.admission.turns.wait,
            admit=self._admit,
            refused=self._refused,
        )
        self.eager_paths = frozenset({CHECK} if codes.checks_at_once else ())
        """The paths of methods that wait for nothing, so that a door may call them without a task."""
        self.otp, self.address = OtpServicer(codes), AddressServicer(codes.addresses)
        self.mail = MailServicer(mails, self.reads, most_unsettled=most_unsettled, admit=self._admit)

    def __repr__(self) -> str:
        return f"<Api {self.guard!r}, {self.reads!r}>"

    def open_guard(self) -> Guard:
        """Return a guard for methods that anybody may call, also in a stop, and for which no stop waits."""
        return self._beside(None)

    def known_guard(self) -> Guard:
        """Return a guard as `open_guard` does, for methods that every caller may call who is known."""
        return self._beside(self._admit_anybody)

    def _beside(self, admit: Admit | None) -> Guard:
        return Guard(Batching(most_seconds=0), self._parsers, self.reads, admit=admit, refused=self._refused)

    def refuse_calls(self) -> None:
        """Answer new calls with UNAVAILABLE; running calls go on."""
        self.guard.refuse_calls()

    async def idle(self) -> None:
        """Wait until no call to our own methods is running; calls to health and reflection do not count."""
        await self.guard.idle.wait()

    async def hold_refusals(self) -> asyncio.Event:
        """Hold back the answers to refused calls, and return once no more calls come, but do not wait for long.

        The event that is returned lets the answers go. A caller that waits for one makes no other call meanwhile, to a
        door that is closing. One long pause would not do: calls may wait for a loop that had no processor meanwhile.
        """
        release = self.guard.hold_refusals()
        quiet, before = 0, self.guard.refused_calls
        for _ in range(_MOST_MOMENTS):
            await asyncio.sleep(_MOMENT)
            now = self.guard.refused_calls
            quiet, before = (quiet + 1 if now == before else 0), now
            if quiet == _QUIET_MOMENTS:
                break
        return release
