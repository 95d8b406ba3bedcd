"""The mail of a code, and the answer to its caller."""

from dataclasses import replace

from otpmail.compose.draft import Draft, Limits
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.model import FIXED_KEY, LETTERS, Challenge, IssuedCode, Mail, MailState, Priority
from otpmail.otp.codes import CodeBook, reference
from otpmail.otp.request import DEFAULT_PURPOSE, CodeRequest, Place, SentCode
from otpmail.otp.terms import Profiles, Terms
from otpmail.settings import OtpSettings
from otpmail.smtp.reply_kind import refuses_mail

CODE_HEADER = "One-Time-Code"

NOT_SENT = frozenset({MailState.FAILED, MailState.EXPIRED, MailState.CANCELLED})
"""The final states of a mail that no relay has accepted."""


class CodeMails:
    """Writes mails with codes within `limits`, and the answers about them."""

    def __init__(self, settings: OtpSettings, codes: CodeBook, profiles: Profiles, limits: Limits) -> None:
        self._has_header = settings.code_header
        self._returns_codes = settings.return_code
        self._codes = codes
        self._profiles = profiles
        self._limits = limits

    def __repr__(self) -> str:
        return f"<CodeMails {self._codes!r}, {self._profiles!r}>"

    def submission(
        self, request: CodeRequest, place: Place, terms: Terms, now: float, issued: IssuedCode
    ) -> Submission:
        """Return the mail of a code: urgent, and not sent once the code has expired.

        Raises InvalidArgument, and KeyGoneError where the key of the code is no longer among ours.
        """
        challenge = issued.challenge
        left = challenge.expires - now
        code = self._codes.code(challenge)
        values = {**request.variables, "code": code, "reference": reference(challenge.id), "email": place.address.spec}
        templates = terms.templates or self._profiles.templates
        mail = templates.render(request.locale, request.purpose or DEFAULT_PURPOSE, values, valid_seconds=left)
        return Submission(
            draft=Draft(
                limits=self._limits,
                to=(place.address,),
                from_=terms.sender,
                subject=mail.subject,
                text=mail.text,
                html=mail.html,
                headers=((CODE_HEADER, code),) if self._has_header else (),
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
            relay=terms.relay,
        )

    def answer(self, mail: Mail, terms: Terms) -> SentCode:
        """Return the answer to the caller of a mail. Raises InvalidArgument where its request id has no code's mail."""
        issued = mail.issued
        if issued is None and mail.recipients and (found := mail.recipients[0].suppression) is not None:
            return SentCode(IssuedCode(Challenge(b"", "", 0.0), found.until), "", mail, 0)
        if issued is None:  # the fingerprint covers the method, so this is another kind of request's id
            raise InvalidArgument("request_id", "was used before for another request")
        is_returned = self._returns_codes and issued.challenge.key_id != FIXED_KEY
        code = self._codes.code_of(issued) if is_returned else ""
        if mail.settle_time is not None and mail.state in NOT_SENT:
            is_counted = any(map(refuses_mail, mail.recipients))  # the relay has seen the mail (`Policy.refuse`)
            issued = replace(issued, next_send_time=max(mail.settle_time, issued.spent_until * is_counted))
        elif terms.wait or issued.spent_until:  # the record counts by the service's own wait
            next_send = max(issued.next_send_time + terms.wait, issued.spent_until)
            issued = replace(issued, next_send_time=next_send)
        length = issued.challenge.length & ~LETTERS or self._codes.digits
        return SentCode(issued, reference(issued.challenge.id), mail, length, code)
