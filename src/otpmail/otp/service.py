"""The use cases of codes: send one, check one, revoke one."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from otpmail.callers import Call
from otpmail.code_record import STRANGERS
from otpmail.compose.catalog import Templates
from otpmail.delivery.job import Job
from otpmail.delivery.waiters import Outcome
from otpmail.errors import InvalidArgument, LimitExceeded
from otpmail.events import CodeChecked, LimitReached, Observer
from otpmail.mail.service import MailService
from otpmail.mail.submission import Submission
from otpmail.mail.undoing import CLOSE_SECONDS, Undoing
from otpmail.model import Challenge, Check, IssuedCode, Priority, Reached, Sending
from otpmail.otp.addresses import AddressService
from otpmail.otp.code_mails import NOT_SENT, CodeMails
from otpmail.otp.codes import CodeBook, KeyGoneError, new_challenge_id
from otpmail.otp.devices import DeviceTokens, new_device
from otpmail.otp.fixed import FixedCodes
from otpmail.otp.issuing import Issuing
from otpmail.otp.quotas import Quotas
from otpmail.otp.refusals import refusal
from otpmail.otp.request import (
    DEFAULT_PURPOSE,
    MAX_CODE,
    Checked,
    CheckRequest,
    CodeRequest,
    Place,
    SentCode,
    find_place,
    naming_variables,
    read_challenge_id,
)
from otpmail.otp.terms import Profiles, Terms
from otpmail.settings import OtpSettings
from otpmail.store.base import Issue
from otpmail.store.challenges import Attempt, ChallengeStore, Quota, Send
from otpmail.store.erasing import person_of


class OtpService:
    """Issues codes by mail and checks them. Every time is in seconds since the epoch, on the store's clock.

    `issue` is that of a store which keeps a guaranteed code and its mail in one commit.
    """

    def __init__(
        self,
        settings: OtpSettings,
        store: ChallengeStore,
        mails: MailService,
        templates: Templates,
        observer: Observer,
        *,
        codes: CodeBook,
        issue: Issue | None = None,
        relays: Collection[str] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._mails = mails
        self._observer = observer
        self._codes = codes
        self._devices = DeviceTokens(codes.subkeys(b"otpmail.device.v1"))
        self._issue_kept = issue
        self._suppressions = mails.suppressions
        self._undoing = Undoing()
        self.addresses = AddressService(store, mails, self._undoing, observer, gmail_dots=settings.gmail_dots)
        self._quotas = Quotas(settings)
        self.profiles = Profiles(settings, relays, templates)
        self._usual = self.profiles.usual
        self._writing = CodeMails(settings, codes, self.profiles, mails.limits)
        self._fixed = FixedCodes(store, mails, codes, self._devices, observer)
        self.checks_at_once = store.checks_at_once

    def __repr__(self) -> str:
        return f"<OtpService {self._store!r}, {self._codes!r}>"

    async def send_code(self, call: Call, request: CodeRequest) -> SentCode:
        """Mail a code: the live one if there is one that is not near its end, else a new one.

        Raises InvalidArgument, LimitExceeded, QueueFull, Unavailable; no mail is sent and no limit is used up then.
        The answer holds the end of the mail, a rejection by the relay included. Where the address is suppressed, it is
        FAILED at once, and no challenge is spent.
        """
        request.check_words()
        place = find_place(
            call.caller,
            request.email,
            request.purpose,
            request.session,
            with_earlier=self._store.reads_earlier,
            gmail_dots=self._settings.gmail_dots,
        )
        is_kept = request.wait_for.guarantees and self._issue_kept is not None
        terms = self._terms_of(call, request.purpose) if call.caller.may.profiles is not None else self._usual
        issue = partial(self._issue, call, request, place, terms)
        known = self._suppressions.store.count
        if known and (found := self._suppressions.find(call.caller.name, place.address.spec)) is not None:
            issue, is_kept = partial(self._mails.leave_out, call, request, place.address.spec, found), False
        if terms.test_addresses and (use := self._fixed.find(call, place, request.purpose, terms)) is not None:
            issue, is_kept = partial(self._fixed.issue, use, request), False
        try:
            job = await self._mails.once(call, request, issue, with_content=is_kept)
        except LimitExceeded as error:
            if error.limit:
                self._observer.notify(LimitReached(error.limit, call.caller.name))
            raise
        except KeyGoneError as gone:  # of the live code, which nobody can check any more: it ends, and a new one begins
            await self._store.void(place.key, place.scope, gone.challenge_id, place.earlier)
            return await self.send_code(call, request)
        mail = job.mail if request.wait_for.guarantees else await self._mails.outcome(call, job)
        return self._writing.answer(mail, terms)

    async def validate_code(self, call: Call, request: CheckRequest) -> Checked:
        """Check a code. In one step of the store the attempt is counted, and a right code is used up.

        A text that can't be a code by its length and alphabet is a wrong code, and costs no attempt. Raises
        InvalidArgument and LimitExceeded; nothing is counted then. After Unavailable the check may have been counted.
        """
        place = find_place(
            call.caller,
            request.email,
            request.purpose,
            request.session,
            with_earlier=self._store.reads_earlier,
            gmail_dots=self._settings.gmail_dots,
        )
        if len(request.code) > MAX_CODE:
            raise InvalidArgument("code", f"is longer than {MAX_CODE} characters")
        now = self._store.now()
        terms = self._terms_of(call, request.purpose) if call.caller.may.profiles is not None else self._usual
        check = await self._check(call, request, place, terms, now)
        self._observer.notify(CodeChecked(check.result.name))
        refused = None
        if request.compat and check.retry_time is not None:
            refused = refusal(check.limit, check.retry_time - now, named=terms.named(check.limit))
        token = self._devices.make(place.key, check.device, check.time) if check.device else ""
        return Checked(check, token, refused)

    async def _check(self, call: Call, request: CheckRequest, place: Place, terms: Terms, now: float) -> Check:
        """Ask the store, and tell of limits that are reached."""
        device = self._devices.read(token, place.key, now) if (token := request.device_token) else STRANGERS
        quotas: tuple[Quota, ...] = ()
        if self._quotas.are_for_guesses or call.caller.may.guesses_per_hour:
            quotas = self._quotas.of_guesses(call.caller)
        only, mark = read_challenge_id(request.challenge_id), request.fingerprint[:8]
        made = new_device(), request.compat, place.earlier
        mailbox = place.mailbox if device == STRANGERS else b""  # as for a mail
        attempt = Attempt(place.scope, device, only, mark, *made, quotas, terms.rules, mailbox)
        if terms.test_addresses and (use := self._fixed.find(call, place, request.purpose, terms)) is not None:
            return await self._fixed.check(use, request, attempt)
        try:
            check = await self._store.check(place.key, now, self._codes.guess(request.code), attempt)
        except LimitExceeded as error:
            self._observer.notify(LimitReached(error.limit, call.caller.name))
            raise
        if check.reached:
            self._note_limits(call, check.reached)
        return check

    async def revoke_code(
        self, call: Call, *, email: str, purpose: str = "", challenge_id: str = "", session: str = ""
    ) -> None:
        """End a live code without using it; ending one that is not live succeeds. Raises InvalidArgument."""
        place = find_place(call.caller, email, purpose, session, with_earlier=self._store.reads_earlier)
        await self._store.void(place.key, place.scope, read_challenge_id(challenge_id), place.earlier)

    def follow(self, job: Job) -> None:
        """Tie a code to how its mail ends, which the store has handed to this process.

        A mail of an earlier version names the record of a purpose, whose code has moved to that of the address.
        """
        issued = job.issued
        if issued is not None and issued.record:
            key = person_of(job.caller, job.envelope.recipients[0])
            sending = Sending(issued.challenge, issued.next_send_time, issued.counted, mailbox=issued.mailbox)
            self._mails.call_when_done(job, partial(self._on_mail_end, key, sending))

    async def close(self, *, seconds: float = CLOSE_SECONDS) -> None:
        """Wait until the records of mails that were not sent are correct, `seconds` at most: the store may be down."""
        await asyncio.gather(self._undoing.close(seconds), self._mails.rates.close(seconds))

    def _terms_of(self, call: Call, purpose: str) -> Terms:
        return self.profiles.of(call.caller, purpose or DEFAULT_PURPOSE)

    async def _issue(self, call: Call, request: CodeRequest, place: Place, terms: Terms, mail_id: str) -> Job:
        memory = self._mails.admission.memory
        with self._mails.admission.reserve(call, request.wait_for, Priority.URGENT, code=True):
            now = self._store.now()
            expires = now + (terms.compat_lifespan if request.compat else terms.lifespan)
            key_id = self._codes.issuing_key
            fresh = Challenge(new_challenge_id(), key_id, expires, length=terms.length, most=terms.attempts)
            room = memory.codes.octets < memory.for_records
            # A repeated call goes on where its process ended: its own mail may be the one that was sent just now.
            spaced = mail_id not in self._mails.resumed
            submission = partial(self._writing.submission, request, place, terms, now)
            key = place.key
            device = self._devices.read(token, key, now) if (token := request.device_token) else STRANGERS
            quotas: tuple[Quota, ...] = ()
            block = request.block if device == STRANGERS else ""  # others behind the address do not count for a device
            if spaced and (block or self._quotas.are_usual or call.caller.may.codes_per_hour):
                quotas = self._quotas.of(call.caller, block)
            mailbox = place.mailbox if device == STRANGERS else b""
            terms_of_send = (request.compat, place.earlier, quotas, mailbox, terms.rules, call.caller.name)
            send = Send(key, now, fresh, spaced, room, place.scope, device, *terms_of_send)
            if request.wait_for.guarantees and self._issue_kept is not None:
                return await self._issue_at_once(self._issue_kept, send, call, mail_id, submission)
            sending = await self._store.send(send)
            if sending.reached:
                self._note_limits(call, sending.reached)
            issued = IssuedCode(sending.challenge, sending.next_send, spent_until=sending.spent_until)
            try:
                job = await self._mails.accept_reserved(call, submission(issued), mail_id)
            except BaseException as error:  # a cancelled call's too: no mail is sent, so the next one need not wait
                await self._undoing.run(partial(self._store.unsend, key, sending))
                if isinstance(error, InvalidArgument):
                    raise naming_variables(error) from None
                raise
        self._mails.call_when_done(job, partial(self._on_mail_end, key, sending))
        return job

    def _note_limits(self, call: Call, reached: Sequence[Reached]) -> None:
        for limit, percent in self._mails.rates.levels.new(call.caller.name, reached, self._store.now()):
            self._observer.notify(LimitReached(limit, call.caller.name, percent))

    async def _issue_at_once(
        self, issue: Issue, send: Send, call: Call, mail_id: str, submission: Callable[[IssuedCode], Submission]
    ) -> Job:
        """Issue a code whose record and mail the store keeps in one commit."""
        issuing = Issuing(issue, send, resend_seconds=self._settings.resend_seconds)
        try:
            job = await issuing.run(self._mails, call, mail_id, submission)
        except BaseException as error:
            if issuing.sending is not None:
                await self._undoing.run(partial(self._store.unsend, send.key, issuing.sending))
            if isinstance(error, InvalidArgument):
                raise naming_variables(error) from None
            raise
        if (sending := issuing.sending) is not None:
            self._note_limits(call, sending.reached)
            self._mails.call_when_done(job, partial(self._on_mail_end, send.key, sending))
        return job

    def _on_mail_end(self, key: bytes, sending: Sending, job: Job, _: Outcome) -> None:
        """Void a code whose address the relay refuses; one whose mail never left may be asked for again at once.

        Neither is done where the relay may have accepted the mail: somebody may have the code, and it stays good.
        """
        if job.state in NOT_SENT:
            self._undoing.begin(partial(self._store.refuse if job.is_refused else self._store.unsend, key, sending))
