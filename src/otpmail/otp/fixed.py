"""Test addresses: a profile gives them a fixed code until a day, and they get no mail.

Their challenges are of a key that there is not, so each is worth nothing once the profile no longer lists the address.
"""

from typing import NamedTuple

from otpmail.callers import Call, FixedCode
from otpmail.delivery.job import Job
from otpmail.events import FixedCodeUsed, Observer
from otpmail.mail.service import MailService
from otpmail.model import FIXED_KEY, Challenge, Check, IssuedCode, Mail, MailState, RecipientResult
from otpmail.otp.codes import CodeBook, new_challenge_id
from otpmail.otp.devices import DeviceTokens
from otpmail.otp.request import DEFAULT_PURPOSE, CheckRequest, CodeRequest, Place
from otpmail.otp.terms import Terms
from otpmail.store.challenges import Attempt, ChallengeStore, Send

_REPLY = 250, "2.0.0", "a test address of this caller: no mail is sent"


class Use(NamedTuple):
    """A call for a test address: whose it is, for which address and purpose, and the fixed code."""

    call: Call
    place: Place
    purpose: str
    terms: Terms
    fixed: FixedCode


class FixedCodes:
    """The fixed codes of test addresses. They count for no limit but those of their own address."""

    def __init__(
        self,
        store: ChallengeStore,
        mails: MailService,
        book: CodeBook,
        devices: DeviceTokens,
        observer: Observer,
    ) -> None:
        self._store = store
        self._mails = mails
        self._book = book
        self._devices = devices
        self._observer = observer

    def __repr__(self) -> str:
        return f"<FixedCodes {self._book!r}>"

    def find(self, call: Call, place: Place, purpose: str, terms: Terms) -> Use | None:
        """Return the use of a test address by its caller's terms for the purpose, None for any other address."""
        fixed = None if terms.test_addresses is None else terms.test_addresses.get(place.address.key)
        if fixed is None or self._store.now() >= fixed.until:
            return None
        return Use(call, place, purpose or DEFAULT_PURPOSE, terms, fixed)

    async def issue(self, use: Use, request: CodeRequest, mail_id: str) -> Job:
        """Issue the code, and settle its mail as relayed without sending it. Raises as `ChallengeStore.send` does."""
        now, place, terms = self._store.now(), use.place, use.terms
        lifespan = terms.compat_lifespan if request.compat else terms.lifespan
        device = self._devices.read(request.device_token, place.key, now)
        fresh = Challenge(new_challenge_id(), FIXED_KEY, now + lifespan, length=terms.length, most=terms.attempts)
        send = Send(place.key, now, fresh, scope=place.scope, device=device, compat=request.compat)
        send = send._replace(earlier=place.earlier, rules=terms.fixed_rules, caller=use.call.caller.name)
        sending = await self._store.send(send)
        self._note(use, "SENT")
        mail = Mail(
            mail_id,
            use.call.caller.name,
            message_id="",
            create_time=now,
            request_id=request.request_id,
            state=MailState.RELAYED,
            recipients=(RecipientResult(place.address.spec, *_REPLY),),
            settle_time=now,
            issued=IssuedCode(sending.challenge, sending.next_send, spent_until=sending.spent_until),
            labels=request.labels,
        )
        return self._mails.remember(mail)

    async def check(self, use: Use, request: CheckRequest, attempt: Attempt) -> Check:
        """Check what was typed, as any code. Raises as `ChallengeStore.check` does."""
        guess = self._book.guess_fixed(request.code, use.fixed.code)
        attempt = attempt._replace(quotas=(), mailbox=b"", rules=use.terms.fixed_rules)
        check = await self._store.check(use.place.key, self._store.now(), guess, attempt)
        self._note(use, check.result.name)
        return check

    def _note(self, use: Use, result: str) -> None:
        self._observer.notify(FixedCodeUsed(use.call.caller.name, use.purpose, use.place.address.spec, result))
