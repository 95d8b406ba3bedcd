"""Events of addresses: suppressed, released, and left out of mails."""

from otpmail.callers import NO_TRACE, Trace
from otpmail.suppression import Suppression
from otpmail.values import frozen


@frozen()
class RecipientSuppressed:
    """Nothing is sent to a recipient of a mail, since its address is suppressed."""

    mail_id: str
    caller: str
    address: str
    suppression: Suppression
    trace: Trace = NO_TRACE


@frozen()
class AddressSuppressed:
    """An address is suppressed from now on: a relay has refused it, or its caller has reported that of `mail_id`."""

    caller: str
    address: str
    suppression: Suppression
    mail_id: str = ""
    trace: Trace = NO_TRACE


@frozen()
class SuppressionLifted:
    """An address is no longer suppressed: it has taken a mail, or its caller has released it."""

    caller: str
    address: str
    suppression: Suppression
    mail_id: str = ""
    trace: Trace = NO_TRACE


@frozen()
class SuppressionsFull:
    """There is no room to suppress a further address: `count` are known. Its mails are sent.

    `repeated`: that was so a minute ago.
    """

    caller: str
    count: int
    repeated: bool


@frozen()
class SuppressionsEvicted:
    """Without room, `count` suppressions of the caller with most were evicted for one of another caller.

    `other` is the caller with most, empty if its name is not known here. `repeated`: that was so a minute ago.
    """

    caller: str
    other: str
    count: int
    repeated: bool


AddressEvent = RecipientSuppressed | AddressSuppressed | SuppressionLifted | SuppressionsFull | SuppressionsEvicted
