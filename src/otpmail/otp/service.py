"""The use cases of codes: send one, check one, revoke one."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from enum import Enum
from functools import partial

from otpmail.address import Address, parse_address, refuse_control_characters
from otpmail.callers import Call, Caller
from otpmail.compose.draft import Draft
from otpmail.compose.templates import Templates
from otpmail.delivery.job import Job
from otpmail.delivery.waiters import Outcome
from otpmail.errors import InvalidArgument, MemoryFull
from otpmail.events import CodeChecked, Observer
from otpmail.mail.service import MailService
from otpmail.mail.submission import Submission
from otpmail.model import Challenge, CodeRecord, IssuedCode, Labels, Mail, MailState, Priority, WaitFor
from otpmail.otp import codes
from otpmail.otp.policy import Policy, Sending
from otpmail.otp.replacements import Replacements
from otpmail.settings import OtpSettings
from otpmail.store.base import ChallengeStore
from otpmail.values import frozen

DEFAULT_PURPOSE = "login"
MAX_CODE = 1000  # as it was typed or pasted, blanks included
MAX_VARIABLES = 32
MAX_VARIABLE = 1000

_PURPOSE = re.compile(r"[a-z0-9_-]{1,32}")
_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LOCALE = re.compile(r"[A-Za-z0-9]{1,8}(?:[-_][A-Za-z0-9]{1,8}){0,7}")
_NOT_SENT = frozenset({MailState.FAILED, MailState.EXPIRED, MailState.CANCELLED})
_RESERVED = frozenset({"code", "reference", "valid_for", "minutes", "email"})
_CLOSE_SECONDS = 2.0
_RECORDS_FULL = "codes of other addresses take their half"

Undo = Callable[[CodeRecord | None], tuple[CodeRecord | None, None]]
"""A rule of `otp.policy` that takes back what sending a code has changed."""


@frozen(kw_only=True)
class CodeRequest:
    """A code that a caller wants mailed.

    `compat` is for the original's contract: its mails need no OTP_RESEND_SECONDS between them, and its codes live for
    two minutes unless OTP_LIFESPAN_SECONDS is set.
    """

    email: str
    purpose: str = ""
    locale: str = ""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_id: str = ""
    fingerprint: bytes = b""
    wait_for: WaitFor = WaitFor.RELAY
    labels: Labels = field(default=(), repr=False)
    compat: bool = False


@frozen()
class SentCode:
    """The answer to a CodeRequest. `code` is empty unless OTP_RETURN_CODE is on; `code_length` is in digits."""

    issued: IssuedCode
    reference: str
    mail: Mail
    code_length: int
    code: str = field(default="", repr=False)


class CheckResult(Enum):
    """The answer to a check."""

    VALID = "valid"
    WRONG_CODE = "wrong_code"
    NO_LIVE_CODE = "no_live_code"
    TOO_MANY_ATTEMPTS = "too_many_attempts"


@frozen()
class Check:
    """`retry_time` (seconds since the epoch) goes with TOO_MANY_ATTEMPTS."""

    result: CheckResult
    attempts_left: int = 0
    retry_time: float | None = None


class OtpService:
    """Issues codes by mail and checks them. Every time is in seconds since the epoch, on the store's clock."""

    def __init__(
        self,
        settings: OtpSettings,
        store: ChallengeStore,
        mails: MailService,
        templates: Templates,
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._store = store
        self._mails = mails
        self.templates = templates
        self._observer = observer
        self._codes = codes.CodeBook(settings.derivation_keys, digits=settings.digits)
        self._policy = Policy(settings.attempts, settings.failures_per_hour, settings.resend_seconds)
        self._lifespans = {compat: settings.lifespan(compat=compat) for compat in (False, True)}
        self._undoing: set[asyncio.Task[None]] = set()
        self._replacements = Replacements()

    def __repr__(self) -> str:
        return f"<OtpService {self._store!r}, {self._codes!r}>"

    async def send_code(self, call: Call, request: CodeRequest) -> SentCode:
        """Mail a code: the live one if there is one that is not near its end, else a new one.

        Raises InvalidArgument, LimitExceeded, QueueFull, Unavailable; no mail is sent and no limit is used up then.
        The answer holds the end of the mail, a rejection by the relay included.
        """
        address = parse_address(request.email, "email")
        key = record_key(call.caller, request.purpose, address)
        _check_words(request)
        job = await self._mails.once(call, request, partial(self._issue, call, request, address, key))
        mail = job.mail if request.wait_for.guarantees else await self._mails.outcome(call, job)
        return self._sent(mail)

    async def validate_code(
        self, call: Call, *, email: str, code: str, purpose: str = "", challenge_id: str = ""
    ) -> Check:
        """Check a code. The attempt is counted before anything is compared; a right code is used up.

        A text that can't be a code by its length and alphabet is a wrong code, and costs no attempt. Raises
        InvalidArgument; nothing is counted then.
        """
        key = record_key(call.caller, purpose, parse_address(email, "email"))
        if len(code) > MAX_CODE:
            raise InvalidArgument("code", f"is longer than {MAX_CODE} characters")
        bound_to = _read_challenge_id(challenge_id)
        typed = codes.normalize(code)
        counts = self._codes.can_issue(typed)
        now = self._store.now()
        attempt = await self._store.update(
            key, lambda record: self._policy.attempt(record, now, bound_to, counts=counts)
        )
        matches = self._codes.matches(attempt.challenge, typed)
        result, retry_time = CheckResult.NO_LIVE_CODE, None
        if attempt.exhausted:
            result, retry_time = CheckResult.TOO_MANY_ATTEMPTS, attempt.retry
        elif matches and attempt.challenge is not None:
            used_id = attempt.challenge.id
            if await self._store.update(key, lambda record: self._policy.succeed(record, used_id)):
                result = CheckResult.VALID
        elif attempt.challenge is not None:
            result = CheckResult.WRONG_CODE
        self._observer.notify(CodeChecked(result.name))
        return Check(result, attempt.attempts_left if result is CheckResult.WRONG_CODE else 0, retry_time)

    async def revoke_code(self, call: Call, *, email: str, purpose: str = "", challenge_id: str = "") -> None:
        """End a live code without using it; ending one that is not live succeeds. Raises InvalidArgument."""
        key = record_key(call.caller, purpose, parse_address(email, "email"))
        bound_to = _read_challenge_id(challenge_id)
        await self._store.update(key, lambda record: self._policy.void(record, bound_to))

    def code_of(self, issued: IssuedCode) -> str:
        """Return the code of a challenge, empty if its key is no longer among ours: it can't be checked either then."""
        try:
            return self._codes.code(issued.challenge)
        except KeyError:
            return ""

    async def close(self, *, seconds: float = _CLOSE_SECONDS) -> None:
        """Wait until the records of mails that were not sent are correct, `seconds` at most: the store may be down."""
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=seconds)

    async def _issue(self, call: Call, request: CodeRequest, address: Address, key: bytes, mail_id: str) -> Job:
        memory = self._mails.admission.memory
        with self._mails.admission.reserve(call, request.wait_for, Priority.URGENT, code=True):
            now = self._store.now()
            expires = now + self._lifespans[request.compat]
            fresh = Challenge(codes.new_challenge_id(), self._codes.issuing_key, expires)

            def send(record: CodeRecord | None) -> tuple[CodeRecord, Sending]:
                if record is None and memory.codes.octets >= memory.for_records:
                    raise MemoryFull(_RECORDS_FULL)
                return self._policy.send(record, now, fresh, spaced=not request.compat)

            sending = await self._store.update(key, send)
            if sending.replaced is not None or self._replacements.under_way:
                self._replacements.begin(sending)
            issued = IssuedCode(sending.challenge, sending.next_send)
            submission = partial(self._submission, request, address, issued, now)
            try:
                job = await self._mails.accept_reserved(call, submission(), mail_id)
            except BaseException as error:  # a cancelled call's too: no mail is sent, so the next one need not wait
                await asyncio.shield(self._unsend(key, sending))
                if isinstance(error, InvalidArgument) and error.field in {"subject", "text", "html"}:
                    words = f"make the mail's {error.field} one that {error.description}"
                    raise InvalidArgument("variables", words) from None
                raise
        self._mails.call_when_done(job, partial(self._on_mail_end, key, sending))
        return job

    def _submission(self, request: CodeRequest, address: Address, issued: IssuedCode, now: float) -> Submission:
        """The mail of a code: urgent, and not sent once the code has expired."""
        challenge = issued.challenge
        left = challenge.expires - now
        code = self._codes.code(challenge)
        values = {
            **request.variables,
            "code": code,
            "reference": codes.reference(challenge.id),
            "email": address.spec,
        }
        mail = self.templates.render(request.locale, values, valid_seconds=left)
        return Submission(
            draft=Draft(
                limits=self._mails.limits,
                to=(address,),
                subject=mail.subject,
                text=mail.text,
                html=mail.html,
                automatic=True,
                code=code,
            ),
            priority=Priority.URGENT,
            wait_for=request.wait_for,
            ttl=left,
            request_id=request.request_id,
            fingerprint=request.fingerprint,
            issued=issued,
            labels=request.labels,
        )

    def _sent(self, mail: Mail) -> SentCode:
        issued = mail.issued
        if issued is None:  # the fingerprint covers the method, so this is another kind of request's id
            raise InvalidArgument("request_id", "was used before for another request")
        code = self._codes.code(issued.challenge) if self._settings.return_code else ""
        if mail.settle_time is not None and mail.state in _NOT_SENT:
            issued = replace(issued, next_send_time=mail.settle_time)
        return SentCode(issued, codes.reference(issued.challenge.id), mail, self._codes.digits, code)

    def _on_mail_end(self, key: bytes, sending: Sending, job: Job, _: Outcome) -> None:
        """Void a code whose address the relay refuses; one whose mail never left may be asked for again at once.

        Neither is done where the relay may have accepted the mail: somebody may have the code, and it stays good.
        """
        if job.state in _NOT_SENT:
            self._unsend(key, sending, refused=job.is_refused)
        elif self._replacements.under_way:
            self._replacements.sent(sending)

    def _unsend(self, key: bytes, sending: Sending, *, refused: bool = False) -> "asyncio.Task[None]":
        """Take back what a mail has changed that was not sent; the code that it replaced may be live again."""
        sending = replace(sending, replaced=self._replacements.not_sent(sending))
        return self._undo(key, partial(self._policy.refuse if refused else self._policy.unsend, sending=sending))

    def _undo(self, key: bytes, rule: Undo) -> "asyncio.Task[None]":
        """Apply a rule whatever becomes of the call that it belongs to; `close` waits for it."""
        task = asyncio.create_task(self._store.update(key, rule))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        return task


def record_key(caller: Caller, purpose: str, address: Address) -> bytes:
    """Return the key of a record: a digest, so that a dump of the store holds no addresses."""
    purpose = purpose or DEFAULT_PURPOSE
    if not _PURPOSE.fullmatch(purpose):
        raise InvalidArgument("purpose", "must be 1 to 32 of a-z, 0-9, _ and -")
    return hashlib.blake2b(f"{caller.name}\0{purpose}\0{address.key}".encode(), digest_size=16).digest()


def _check_words(request: CodeRequest) -> None:
    if request.locale and not _LOCALE.fullmatch(request.locale):
        raise InvalidArgument("locale", "is not a language tag such as en or pt-BR (BCP 47)")
    if len(request.variables) > MAX_VARIABLES:
        raise InvalidArgument("variables", f"there are more than {MAX_VARIABLES}")
    for name, value in request.variables.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidArgument("variables", f"{name[:40]!r} is not a name: a-z, then up to 31 of a-z, 0-9 and _")
        if name in _RESERVED:
            raise InvalidArgument("variables", f"{name!r} is filled in by the service")
        if len(value) > MAX_VARIABLE:
            raise InvalidArgument("variables", f"{name!r} is longer than {MAX_VARIABLE} characters")
        refuse_control_characters(value, f"variables[{name!r}]")


def _read_challenge_id(text: str) -> bytes | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        raise InvalidArgument("challenge_id", "is not one that SendCode gave")
    return bytes.fromhex(text)
