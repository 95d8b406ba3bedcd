"""The calls about mails."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import partial
from math import isfinite

from google.protobuf.duration_pb2 import Duration

from otpmail.client import decode
from otpmail.client.arguments import named
from otpmail.client.errors import Error, InvalidRequest
from otpmail.client.plan import RELAY_SECONDS, Plan, StreamPlan, built, new_request_id, raise_if, wait_for_value
from otpmail.client.values import Attachment, Mail, OutgoingMail, Priority, State, WaitFor
from otpmail.v1 import mail_pb2

_SERVICE = "/otpmail.v1.MailService"

SEND_MAILS = StreamPlan(f"{_SERVICE}/SendMails", mail_pb2.SendMailsRequest, mail_pb2.SendMailsResponse)


def send_mail(
    to: str | Sequence[str],
    subject: str = "",
    text: str = "",
    html: str = "",
    *,
    cc: str | Sequence[str] = (),
    bcc: str | Sequence[str] = (),
    from_: str = "",
    sender: str = "",
    return_path: str = "",
    reply_to: str | Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
    attachments: Sequence[Attachment] = (),
    message_id: str = "",
    labels: Mapping[str, str] | None = None,
    priority: Priority = Priority.NORMAL,
    wait_for: WaitFor = WaitFor.RELAY,
    ttl: float | None = None,
    request_id: str = "",
    raise_outcome: bool = True,
    timeout: float | None = None,
) -> Plan[Mail]:
    """Send one mail. It is answered once the mail has settled, or with `WaitFor.QUEUE` once it is accepted.

    Raises NotSent where it did not reach everyone, unless `raise_outcome=False`. Raises RelayDown.
    """
    mail = OutgoingMail(
        to=to,
        subject=subject,
        text=text,
        html=html,
        cc=cc,
        bcc=bcc,
        from_=from_,
        sender=sender,
        return_path=return_path,
        reply_to=reply_to,
        headers=headers,
        attachments=attachments,
        message_id=message_id,
        labels=labels or {},
        priority=priority,
        wait_for=wait_for,
        ttl=ttl,
        request_id=request_id,
    )
    return _sending(mail, raise_outcome=raise_outcome, timeout=timeout)


def _sending(mail: OutgoingMail, *, raise_outcome: bool, timeout: float | None) -> Plan[Mail]:
    """Return the call that sends a mail."""
    read, answer = partial(_sent, raise_outcome=raise_outcome), mail_pb2.SendMailResponse
    return Plan(f"{_SERVICE}/SendMail", mail_request(mail), answer, read, timeout, usual=RELAY_SECONDS)


def _sent(answer: mail_pb2.SendMailResponse, *, raise_outcome: bool) -> Mail:
    """Return the mail of an answer, or raise how it ended."""
    sent = decode.mail(answer.mail)
    raise_if(raise_outcome, decode.outcome(sent))
    return sent


def get_mail(mail_id: str = "", *, request_id: str = "", caller: str = "", timeout: float | None = None) -> Plan[Mail]:
    """Return the present state of a mail, by its id or the request_id of the request for it. Raises NotFound."""
    request = mail_pb2.GetMailRequest(id=mail_id, request_id=request_id, caller=caller)
    return Plan(f"{_SERVICE}/GetMail", request, mail_pb2.Mail, decode.mail, timeout)


def cancel_mail(
    mail_id: str = "", *, request_id: str = "", caller: str = "", timeout: float | None = None
) -> Plan[Mail]:
    """Cancel a mail that is not with the relay. Raises NotFound, and WrongState where it is too late.

    It is not repeated by itself: after a lost answer the mail may be cancelled, and the second call would be refused.
    """
    request = mail_pb2.CancelMailRequest(id=mail_id, request_id=request_id, caller=caller)
    return Plan(f"{_SERVICE}/CancelMail", request, mail_pb2.Mail, decode.mail, timeout, is_repeatable=False)


def retry_mail(mail_id: str, *, caller: str = "", timeout: float | None = None) -> Plan[Mail]:
    """Send a mail again that did not reach all of its recipients. Raises NotFound and WrongState.

    It is not repeated by itself, as `cancel_mail` is not.
    """
    request = mail_pb2.RetryMailRequest(id=mail_id, caller=caller)
    return Plan(f"{_SERVICE}/RetryMail", request, mail_pb2.Mail, decode.mail, timeout, is_repeatable=False)


def watch_mail(
    mail_id: str = "", *, request_id: str = "", caller: str = "", timeout: float | None = None
) -> Plan[Mail]:
    """Stream the state of a mail, now and at each change, until it settles. Raises NotFound."""
    request = mail_pb2.WatchMailRequest(id=mail_id, request_id=request_id, caller=caller)
    return Plan(f"{_SERVICE}/WatchMail", request, mail_pb2.Mail, decode.mail, timeout, usual=None)


class Changes:
    """The states of a watched mail, each once: a stream over a new connection begins with the state that came last."""

    def __init__(self) -> None:
        self._last: Mail | None = None

    def __repr__(self) -> str:
        return f"<Changes after {self._last and self._last.state}>"

    def read(self, mail: Mail) -> list[Mail]:
        """Return the state if it has not come before, in a list."""
        if mail == self._last:
            return []
        self._last = mail
        return [mail]


def list_page(
    state: State | None = None,
    *,
    recipient: str = "",
    request_id: str = "",
    caller: str = "",
    page_size: int = 0,
    page_token: str = "",
    timeout: float | None = None,
) -> Plan[tuple[list[Mail], str]]:
    """Return a page of the caller's mails, and the token of the next one, empty on the last page."""
    request = mail_pb2.ListMailsRequest(
        state=mail_pb2.Mail.State.Value(f"STATE_{state or State.UNSPECIFIED}"),
        recipient=recipient,
        request_id=request_id,
        caller=caller,
        page_size=page_size,
        page_token=page_token,
    )
    return Plan(f"{_SERVICE}/ListMails", request, mail_pb2.ListMailsResponse, _page, timeout)


class Pages:
    """The pages of a list, as calls to make one after the other: `read` takes the answer of each before the next.

    Raises InvalidRequest, from its iteration, for text that no request can have.
    """

    def __init__(self, state: State | None, *, recipient: str, request_id: str, caller: str) -> None:
        self._state, self._recipient, self._request_id, self._caller = state, recipient, request_id, caller
        self._token = ""
        self._is_last = False

    def __repr__(self) -> str:
        return f"<Pages{', all read' if self._is_last else ''}>"

    def __iter__(self) -> Iterator[Plan[tuple[list[Mail], str]]]:
        while not self._is_last:
            yield built(
                list_page,
                self._state,
                recipient=self._recipient,
                request_id=self._request_id,
                caller=self._caller,
                page_token=self._token,
            )

    def read(self, page: tuple[list[Mail], str]) -> list[Mail]:
        """Return the mails of a page, and note where the next one begins."""
        found, self._token = page
        self._is_last = not self._token
        return found


def _page(answer: mail_pb2.ListMailsResponse) -> tuple[list[Mail], str]:
    return [decode.mail(found) for found in answer.mails], answer.next_page_token


def outgoing_request(mail: OutgoingMail) -> mail_pb2.SendMailRequest:
    """Return the request for a mail of a stream. Raises TypeError or InvalidRequest for one that can't be written."""
    try:
        return mail_request(mail)
    except Error:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        if not isinstance(mail, OutgoingMail):
            raise TypeError(f"outgoing: each must be an OutgoingMail, not {type(mail).__name__}") from None
        known = fields(mail)
        raise named(
            error, {each.name: getattr(mail, each.name) for each in known}, {each.name: each.type for each in known}
        ) from None


def mail_request(mail: OutgoingMail) -> mail_pb2.SendMailRequest:
    """Return the request for a mail, with a request_id."""
    request = mail_pb2.SendMailRequest(
        to=_listed(mail.to),
        cc=_listed(mail.cc),
        bcc=_listed(mail.bcc),
        subject=mail.subject,
        text=mail.text,
        html=mail.html,
        sender=mail.sender,
        return_path=mail.return_path,
        reply_to=_listed(mail.reply_to),
        headers=[mail_pb2.Header(name=name, value=value) for name, value in mail.headers],
        attachments=[_attachment(file) for file in mail.attachments],
        message_id=mail.message_id,
        labels=mail.labels,
        priority=mail_pb2.Priority.Value(f"PRIORITY_{mail.priority}"),
        wait_for=wait_for_value(mail.wait_for),
        request_id=mail.request_id or new_request_id(),
    )
    setattr(request, "from", mail.from_ or "")  # a keyword in Python
    if mail.ttl is not None:
        request.ttl.CopyFrom(_ttl(mail.ttl))
    return request


def _ttl(seconds: float) -> Duration:
    """Return the field of a request for this. Raises InvalidRequest for a time that no request can have."""
    ttl = Duration()
    try:
        if not isfinite(seconds):
            raise InvalidRequest(f"ttl: {seconds} is no time in seconds", field="ttl")
        ttl.FromTimedelta(timedelta(seconds=seconds))
    except OverflowError:
        raise InvalidRequest("ttl: is too long", field="ttl") from None
    return ttl


def _attachment(file: Attachment) -> mail_pb2.Attachment:
    return mail_pb2.Attachment(
        filename=file.filename,
        content=file.content,
        content_type=file.content_type,
        content_id=file.content_id,
        alternative=file.alternative,
    )


def _listed(addresses: str | Sequence[str]) -> Sequence[str]:
    return [addresses] if isinstance(addresses, str) else addresses
