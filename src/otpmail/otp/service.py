"""The use cases of codes: send one, check one, revoke one."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from enum import Enum
from functools import partial
from time import time

from otpmail.address import Address, parse_address, refuse_control_characters
from otpmail.compose.draft import Draft
from otpmail.compose.templates import Templates
from otpmail.delivery.job import Job
from otpmail.errors import InvalidArgument
from otpmail.events import CodeChecked, Observer
from otpmail.mail.service import MailService, Submission
from otpmail.model import ANONYMOUS, Challenge, CodeRecord, IssuedCode, Mail, MailState, Priority, WaitFor
from otpmail.otp import codes
from otpmail.otp.policy import Policy
from otpmail.settings import OtpSettings
from otpmail.store.base import ChallengeStore
from otpmail.values import frozen

DEFAULT_PURPOSE = "login"
MAX_CODE = 64
MAX_VARIABLES = 32
MAX_VARIABLE = 1000

_PURPOSE = re.compile(r"[a-z0-9_-]{1,32}")
_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LOCALE = re.compile(r"[A-Za-z0-9]{1,8}(?:[-_][A-Za-z0-9]{1,8}){0,7}")
_NOT_SENT = frozenset({MailState.FAILED, MailState.EXPIRED, MailState.CANCELLED})
_RESERVED = frozenset({"code", "reference", "minutes", "email"})


@frozen(kw_only=True)
class CodeRequest:
    """A code that a caller wants mailed. `spaced` holds mails OTP_RESEND_SECONDS apart; see `Policy.send`."""

    email: str
    purpose: str = ""
    caller: str = ANONYMOUS
    locale: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    fingerprint: bytes = b""
    wait_for: WaitFor = WaitFor.RELAY
    spaced: bool = True


@frozen()
class SentCode:
    """What became of a CodeRequest. `code` is empty unless OTP_RETURN_CODE is on."""

    issued: IssuedCode
    reference: str
    mail: Mail
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
    """Issues codes by mail and checks them. `now` is seconds since the epoch; the store has a clock of its own."""

    def __init__(
        self,
        settings: OtpSettings,
        store: ChallengeStore,
        mails: MailService,
        templates: Templates,
        observer: Observer,
        *,
        now: Callable[[], float] = time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._mails = mails
        self._templates = templates
        self._observer = observer
        self._now = now
        self._codes = codes.CodeBook(settings.derivation_keys, digits=settings.digits)
        self._policy = Policy(
            settings.lifespan_seconds, settings.attempts, settings.failures_per_hour, settings.resend_seconds
        )
        self._follow_ups: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<OtpService {self._store!r}, {self._codes!r}>"

    async def send_code(self, request: CodeRequest) -> SentCode:
        """Mail a code: the live one if there is one, else a new one.

        Raises InvalidArgument, LimitExceeded, QueueFull, Unavailable; nothing was mailed or spent then. How the mail
        ended, a refusal by the relay included, is in the answer.
        """
        address = parse_address(request.email, "email")
        key = self._key(request.caller, request.purpose, address)
        _check_words(request)
        earlier = await self._mails.earlier(request.caller, request.request_id, request.fingerprint)
        if earlier is None:
            earlier = await self._issue(request, address, key)
        mail = earlier.mail if request.wait_for.guarantees else await self._mails.outcome(earlier)
        return self._sent(mail)

    async def validate_code(
        self, *, email: str, code: str, purpose: str = "", challenge_id: str = "", caller: str = ANONYMOUS
    ) -> Check:
        """Check a code. The attempt is counted before anything is compared; a right code is used up.

        Raises InvalidArgument; nothing was counted then.
        """
        key = self._key(caller, purpose, parse_address(email, "email"))
        if len(code) > MAX_CODE:
            raise InvalidArgument("code", f"is longer than {MAX_CODE} characters")
        bound_to = _read_challenge_id(challenge_id)
        now = self._store.now()
        attempt = await self._store.update(key, lambda standing: self._policy.attempt(standing, now, bound_to))
        matches = self._codes.matches(attempt.challenge, codes.normalize(code))
        check = Check(CheckResult.NO_LIVE_CODE)
        if attempt.exhausted:
            check = Check(CheckResult.TOO_MANY_ATTEMPTS, retry_time=self._now() + attempt.retry - now)
        elif attempt.challenge is not None and not matches:
            check = Check(CheckResult.WRONG_CODE, attempt.attempts_left)
        elif attempt.challenge is not None:
            used_id = attempt.challenge.id
            if await self._store.update(key, lambda standing: self._policy.succeed(standing, used_id)):
                check = Check(CheckResult.VALID)
        self._observer.notify(CodeChecked(check.result.name))
        return check

    async def revoke_code(
        self, *, email: str, purpose: str = "", challenge_id: str = "", caller: str = ANONYMOUS
    ) -> None:
        """End a live code without using it; ending what is not live succeeds. Raises InvalidArgument."""
        key = self._key(caller, purpose, parse_address(email, "email"))
        bound_to = _read_challenge_id(challenge_id)
        await self._store.update(key, lambda standing: self._policy.void(standing, bound_to))

    async def drained(self) -> None:
        """Wait until the store has every change that a settled mail or a failed call brings about."""
        while self._follow_ups:
            await asyncio.wait(self._follow_ups)

    async def _issue(self, request: CodeRequest, address: Address, key: bytes) -> Job:
        self._mails.refuse_if_hopeless(request.wait_for)
        now = self._store.now()
        fresh = Challenge(codes.new_challenge_id(), self._codes.issuing_key, now + self._settings.lifespan_seconds)
        challenge = await self._store.update(
            key, lambda standing: self._policy.send(standing, now, fresh, spaced=request.spaced)
        )
        next_send = now + self._settings.resend_seconds
        try:
            job = await self._mails.accept(self._order(request, address, challenge, now))
        except BaseException as error:  # a cancelled call's too: no mail goes, so there is nothing to wait for
            undo = partial(self._policy.unsend, challenge_id=challenge.id, next_send=next_send)
            await asyncio.shield(self._follow_up(key, undo))
            if isinstance(error, InvalidArgument) and error.field in {"subject", "text", "html"}:
                raise InvalidArgument(
                    "variables", f"make the mail's {error.field} one that {error.description}"
                ) from None
            raise
        job.add_done_callback(lambda job, _: self._mail_settled(key, challenge.id, next_send, job))
        return job

    def _order(self, request: CodeRequest, address: Address, challenge: Challenge, now: float) -> Submission:
        """The mail of a code: urgent, and given up when the code expires."""
        left = challenge.expires - now
        values = {
            **request.variables,
            "code": self._codes.code(challenge),
            "reference": codes.reference(challenge.id),
            "minutes": str(max(1, round(left / 60))),
            "email": address.spec,
        }
        mail = self._templates.render(request.locale, values)
        at = self._now()
        return Submission(
            draft=Draft(
                limits=self._mails.limits,
                to=(address,),
                subject=mail.subject,
                text=mail.text,
                html=mail.html,
                automatic=True,
            ),
            caller=request.caller,
            priority=Priority.URGENT,
            wait_for=request.wait_for,
            ttl=left,
            request_id=request.request_id,
            fingerprint=request.fingerprint,
            issued=IssuedCode(challenge, at + left, at + self._settings.resend_seconds),
        )

    def _sent(self, mail: Mail) -> SentCode:
        issued = mail.issued
        if issued is None:  # the fingerprint covers the method, so this is another kind of request's id
            raise InvalidArgument("request_id", "was used before for another request")
        code = self._codes.code(issued.challenge) if self._settings.return_code else ""
        if mail.settle_time is not None and mail.state in _NOT_SENT:
            issued = replace(issued, next_send_time=mail.settle_time)
        return SentCode(issued, codes.reference(issued.challenge.id), mail, code)

    def _mail_settled(self, key: bytes, challenge_id: bytes, next_send: float, job: Job) -> None:
        """A code whose address the relay refuses is void; one whose mail never left may be asked for again at once.

        Neither holds where the relay may have taken the mail: the code may be in somebody's hands, and stays good.
        """
        if job.state not in _NOT_SENT:
            return
        refused = any(result.refused for result in job.mail.recipients)
        rule = self._policy.refuse if refused else self._policy.unsend
        self._follow_up(key, lambda standing: rule(standing, challenge_id, next_send))

    def _follow_up(
        self, key: bytes, rule: Callable[[CodeRecord | None], tuple[CodeRecord | None, None]]
    ) -> "asyncio.Task[None]":
        """Apply a rule that is to hold whatever becomes of the call it came with."""
        task = asyncio.create_task(self._store.update(key, rule))
        self._follow_ups.add(task)
        task.add_done_callback(self._follow_ups.discard)
        return task

    def _key(self, caller: str, purpose: str, address: Address) -> bytes:
        """What the record is kept under: a digest, so that a dump of the store holds no addresses."""
        purpose = purpose or DEFAULT_PURPOSE
        if not _PURPOSE.fullmatch(purpose):
            raise InvalidArgument("purpose", "must be 1 to 32 of a-z, 0-9, _ and -")
        return hashlib.blake2b(f"{caller}\0{purpose}\0{address.key}".encode(), digest_size=16).digest()


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
