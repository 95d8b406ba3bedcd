"""Events about callers: refused calls, limits, full addresses, and files that say who may call."""

from otpmail.values import frozen


@frozen()
class CallRefused:
    """A call ended with an error that is meant for its caller.

    `status` is the gRPC status by its name, `reason` that of google.rpc.ErrorInfo, `message` the text that the caller
    got. `address` is the first one in the request, empty without one. `caller` is empty where nobody knows it: the call
    had no token, or a wrong one.
    """

    method: str
    peer: str
    status: str
    reason: str
    message: str = ""
    address: str = ""
    caller: str = ""


@frozen()
class CallsRefused:
    """Further `count` calls of the method were refused so, for which there was no event each."""

    method: str
    status: str
    reason: str
    count: int


@frozen()
class ConnectionsFull:
    """An address has `most` connections of callers, as many as it may; further ones there are closed at once."""

    address: str
    most: int


@frozen()
class ConnectionsFree:
    """The address has fewer connections than `most` again."""

    address: str
    most: int


@frozen()
class AccessRenewed:
    """The file of a setting about callers or TLS has changed and is in force; `holds` says what it has now."""

    setting: str
    holds: str


@frozen()
class AccessKept:
    """The file of a setting about callers or TLS can't be used, by a `problem` in one line; what it held stays."""

    setting: str
    problem: str


@frozen()
class CertificateDoubtful:
    """Callers refuse the certificate of a setting, or will soon, by a `problem` in one line.

    It is valid from `not_before` to `not_after`, in seconds since the epoch.
    """

    setting: str
    problem: str
    not_before: float
    not_after: float


@frozen()
class TemplateMisspelt:
    """A name in a folder of templates is probably misspelt. `problem` is a line that opens with `setting`."""

    setting: str
    problem: str


@frozen()
class LimitReached:
    """A mail, or a wrong code, has reached a limit, by its name in LIMITS_MODE, and `percent` of it.

    With 50 and 80 percent nothing was refused, and with 100 neither: the limit is in shadow. 0 is a refusal.
    """

    limit: str
    caller: str
    percent: int = 0


@frozen()
class CodesEvicted:
    """Without room, `count` records of codes of the caller with most were evicted for one of another caller.

    `other` is the caller with most, empty if its name is not known. `repeated`: that was so a minute ago.
    """

    caller: str
    other: str
    count: int
    repeated: bool


@frozen()
class FixedCodeUsed:
    """A test address was sent its fixed code, though no mail, or somebody has tried one there: `result` says which.

    It is SENT, or the name of the answer. The event does not hold the code.
    """

    caller: str
    purpose: str
    address: str
    result: str


@frozen()
class AddressReleased:
    """A caller has lifted what was spent of the limits of an address: `lifted` has words for each."""

    caller: str
    address: str
    lifted: tuple[str, ...]


@frozen()
class AddressForgotten:
    """A caller has had an address erased, also from so many settled mails."""

    caller: str
    address: str
    mails: int


CallEvent = (
    AddressReleased
    | AddressForgotten
    | CallRefused
    | CallsRefused
    | LimitReached
    | CodesEvicted
    | FixedCodeUsed
    | ConnectionsFull
    | ConnectionsFree
    | AccessRenewed
    | AccessKept
    | CertificateDoubtful
    | TemplateMisspelt
)
