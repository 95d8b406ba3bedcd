"""The capabilities that a relay announces in its reply to EHLO (RFC 5321, 4.1.1.1), and the mails that it rejects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from otpmail.model import Envelope, RecipientResult
from otpmail.smtp.replies import Reply, result

SHOWN = ("PIPELINING", "CHUNKING", "SMTPUTF8", "8BITMIME", "SIZE", "LIMITS", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH")
"""The extensions that `otpmail check` lists."""

_SIZE_DIGITS = 20  # RFC 1870, 3
_LIMIT = re.compile(r"[1-9][0-9]{0,5}")  # RFC 9422, 5: 1 to 999999

# The last line of defence, since addresses are checked when a mail is accepted. An address must hold nothing that could
# end a path or a command, and no surrogate, which UTF-8 cannot encode. A blank may stand in quotes.
_UNSAFE = re.compile(r"[\x00- <>\x7f\ud800-\udfff]")
_SAFE = re.compile(r'(?:"(?:[^"\\\x00-\x1f<>\x7f\ud800-\udfff]|\\[ -;=?-~])*+"(?=@))?[^\x00- "<>\x7f\ud800-\udfff]*+')
_FORBIDDEN = Reply(553, b"5.1.3 an address holds a character that is not allowed in a command")
_NO_SMTPUTF8 = b"5.6.7 %sthe relay does not take internationalised addresses (it announces no SMTPUTF8)"
_HEADER = re.compile(rb"^(From|Sender|Reply-To): ([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n", re.MULTILINE)
_FIELDS = {b"From": b"from", b"Sender": b"sender", b"Reply-To": b"reply_to"}
_ONLY = b"5.4.4 this mail is for the relay %s alone"
_NO_8BITMIME = Reply(
    554, b"5.6.3 the content is not ASCII, since a mail attached to it is not, and the relay announces no 8BITMIME"
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions by upper-case keyword, each with its parameter text.

    `size` is the largest mail in octets (RFC 1870), 0 when there is no fixed bound, None when not announced.
    `mail_max`, `rcpt_max` and `domain_max` are the mails on one connection, the recipients of one mail and their
    domains. They are MAILMAX, RCPTMAX and RCPTDOMAINMAX of RFC 9422, None when not announced. `dsn` is whether MAIL may
    ask for what a report of a failure holds (RFC 3461). `relay` is the relay's name, for mails that are for one alone.
    """

    extensions: dict[str, str]
    relay: str = ""
    size: int | None = field(init=False)
    mail_max: int | None = field(init=False)
    rcpt_max: int | None = field(init=False)
    domain_max: int | None = field(init=False)
    dsn: bool = field(init=False)

    def __post_init__(self) -> None:
        """Read the parameters that are needed for every mail."""
        parameters = self.extensions.get("SIZE")
        limits = _read_limits(self.extensions.get("LIMITS", ""))
        object.__setattr__(self, "size", None if parameters is None else _read_size(parameters.strip()))
        object.__setattr__(self, "mail_max", limits.get("MAILMAX"))
        object.__setattr__(self, "rcpt_max", limits.get("RCPTMAX"))
        object.__setattr__(self, "dsn", "DSN" in self.extensions)
        object.__setattr__(self, "domain_max", limits.get("RCPTDOMAINMAX"))

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.extensions

    def first_of(self, recipients: tuple[str, ...], most: int) -> tuple[str, ...]:
        """Return the recipients that may go together in one transaction, in their order, `most` at most."""
        if self.domain_max is not None:
            recipients = _of_domains(recipients, self.domain_max)
        return recipients[: min(most, self.rcpt_max or most)]

    def adapted(self, envelope: Envelope) -> Envelope:
        """The mail as it goes to this relay: without SMTPUTF8 where the relay lacks that and the mail can."""
        return envelope.without_smtputf8() if envelope.smtputf8 and "SMTPUTF8" not in self else envelope

    def rejects(self, envelope: Envelope) -> tuple[RecipientResult, ...]:
        """The replies that the relay is certain to give, so that it need not be asked; none where it may take the mail.

        Where it may take the mail for some recipients, these are the replies for the others.
        """
        if envelope.relay and envelope.relay != self.relay:
            return _replies(envelope.recipients, Reply(550, _ONLY % envelope.relay.encode()))
        addresses = "".join((envelope.sender, *envelope.recipients))
        if _UNSAFE.search(addresses) and (unsafe := _unsafe(envelope)):
            return _replies(unsafe, _FORBIDDEN)
        if not addresses.isascii() or envelope.smtputf8:
            internationalised = self._rejected_as_internationalised(envelope)
            if internationalised:
                at_fault = _internationalised_field(envelope)
                words = _NO_SMTPUTF8 % (at_fault and b"%s is an internationalised address, and " % at_fault)
                return _replies(internationalised, Reply(550, words))
        # A relay with SMTPUTF8 takes 8BITMIME for granted (RFC 6531, 3.1), even if it announces no 8BITMIME.
        if not (envelope.content.isascii() or envelope.smtputf8 or "8BITMIME" in self):
            return _replies(envelope.recipients, _NO_8BITMIME)
        if self.size and len(envelope.content) > self.size:
            words = b"5.3.4 the mail has %d octets, the relay takes %d" % (len(envelope.content), self.size)
            return _replies(envelope.recipients, Reply(552, words))
        return ()

    def _rejected_as_internationalised(self, envelope: Envelope) -> Sequence[str]:
        """The recipients to whom the mail can't go, since an address or a header is not ASCII."""
        if envelope.smtputf8:
            return () if "SMTPUTF8" in self else envelope.recipients
        if not envelope.sender.isascii():
            return envelope.recipients
        return [address for address in envelope.recipients if not address.isascii()]


def _internationalised_field(envelope: Envelope) -> bytes:
    """The field of a mail that keeps it from all its recipients; empty if it is about them."""
    if envelope.smtputf8:
        for name, value in _HEADER.findall(envelope.content.partition(b"\r\n\r\n")[0] + b"\r\n"):
            if not value.isascii():
                return _FIELDS[name]
    return b"" if envelope.sender.isascii() else b"return_path"


def _unsafe(envelope: Envelope) -> Sequence[str]:
    """The recipients to whom no command can be written: all, where it is for the sender."""
    if not _SAFE.fullmatch(envelope.sender):
        return envelope.recipients
    return [address for address in envelope.recipients if not _SAFE.fullmatch(address)]


def _replies(recipients: Sequence[str], reply: Reply) -> tuple[RecipientResult, ...]:
    return tuple([result(address, reply) for address in recipients])


def _read_size(digits: str) -> int:
    return int(digits) if digits.isdecimal() and len(digits) <= _SIZE_DIGITS else 0


def _of_domains(recipients: tuple[str, ...], most: int) -> tuple[str, ...]:
    """The recipients in the first so many domains."""
    domains = [recipient.rpartition("@")[2].lower() for recipient in recipients]
    together = frozenset(tuple(dict.fromkeys(domains))[:most])
    return tuple([address for address, domain in zip(recipients, domains, strict=True) if domain in together])


def _read_limits(parameters: str) -> dict[str, int]:
    """The limits whose values are numbers, by upper-case name; other limits, and malformed ones, are left out."""
    named = (parameter.partition("=") for parameter in parameters.split())
    return {name.upper(): int(value) for name, _, value in named if _LIMIT.fullmatch(value)}
