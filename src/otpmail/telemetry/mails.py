"""The line of the log about each mail that has settled, with which an operator answers "I got no code"."""

import json
import logging
import re
from typing import Literal, NamedTuple

from otpmail.events import MailSettled
from otpmail.model import Mail, MailState
from otpmail.smtp.queue_id import queue_ids
from otpmail.telemetry.addresses import Addresses

LoggedMails = Literal["all", "codes", "failed", "off"]

MOST_ADDRESSES = 5
"""How many recipients of a mail a line names; of further ones it has the number."""

_MOST_REPLIES = 5
_IS_ONE_WORD = re.compile(r"[\w.+:/@=<>*!$%&{}~^|#?,'-]++").fullmatch


class Line(NamedTuple):
    """A line of the log: its level, its sentence, and its fields for machines."""

    level: int
    sentence: str
    fields: dict[str, object]


class MailLines:
    """Makes the lines of those mails that LOG_MAILS names: `all`, `codes` and what failed, `failed` only, or none.

    `of_all`, `of_codes` and `of_failed` are whether all relayed mails, relayed codes and failed mails get one. A mail
    that did not reach the relay for each recipient has failed, also where it was cancelled.
    """

    def __init__(self, logged: LoggedMails = "codes", addresses: Addresses | None = None) -> None:
        self.of_all = logged == "all"
        self.of_codes = logged in {"all", "codes"}
        self.of_failed = logged != "off"
        self._addresses = addresses or Addresses()

    def __repr__(self) -> str:
        return f"<MailLines all={self.of_all} codes={self.of_codes} failed={self.of_failed} {self._addresses!r}>"

    def line(self, event: MailSettled) -> Line:
        """Return the line. Its level is warning where the relay, or the time, kept the mail from somebody."""
        mail = event.mail
        state, is_code = _NAMES[mail.state], mail.issued is not None
        to, ids = self._to(mail), ",".join(queue_ids(mail.recipients, most=_MOST_REPLIES))
        replies = "" if mail.state is _RELAYED else self._replies(mail)
        milliseconds = round(((mail.settle_time or mail.create_time) - mail.create_time) * 1000)
        fields: dict[str, object] = {"mail": mail.id, "state": state, "code": is_code, "to": to, "relay": event.relay}
        shown = to if _IS_ONE_WORD(to) else _quoted(to)
        text = f"mail {mail.id}: {'code' if is_code else 'mail'} {state.lower()} to={shown}"
        if event.relay:
            text += f" relay={event.relay}"
        if ids:
            fields["queue_id"] = ids
            text += f" queue_id={ids}"
        fields |= {"attempts": mail.attempts, "ms": milliseconds}
        text += f" attempts={mail.attempts} ms={milliseconds}"
        if mail.request_id:
            fields["request_id"] = mail.request_id
            name = mail.request_id
            text += f" request_id={name if _IS_ONE_WORD(name) else _quoted(name)}"
        if replies:
            fields["reply"] = replies
            text += f": {replies}"
        return Line(logging.INFO if mail.state in _NO_WARNING else logging.WARNING, text, fields)

    def _to(self, mail: Mail) -> str:
        recipients = mail.recipients
        if len(recipients) == 1:
            return self._addresses.show(recipients[0].address)
        shown = ",".join([self._addresses.show(result.address) for result in recipients[:MOST_ADDRESSES]])
        return shown if len(recipients) <= MOST_ADDRESSES else f"{shown},+{len(recipients) - MOST_ADDRESSES}"

    def _replies(self, mail: Mail) -> str:
        """Return the last reply about each recipient that has none of the mail, or our words where there was none."""
        replies = dict.fromkeys(result.said for result in mail.recipients if not result.accepted)
        return self._addresses.within("; ".join(list(filter(None, replies))[:_MOST_REPLIES]))


def _quoted(value: str) -> str:
    """Return a value in quotes, since a reader could take it for more than one word."""
    return json.dumps(value, ensure_ascii=False)


_RELAYED = MailState.RELAYED
_NO_WARNING = frozenset({MailState.RELAYED, MailState.CANCELLED})
_NAMES = {state: state.name for state in MailState}  # to ask a member for its name takes 0.3 us
