"""Says whose mails a call is about: its caller's own, or those of others, which an operator may see and change."""

from otpmail.callers import ANONYMOUS, Caller
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import InvalidArgument, PermissionDenied
from otpmail.mail.lookup import check_mail_id, not_found
from otpmail.store.base import MailStore

ANY = "-"
"""The wildcard in place of a caller's name (AIP-159): whichever caller has the mail. No caller has this name."""

MOST_CHARACTERS = 320
"""The most characters of a caller's name; that of a certificate may have 261."""


def whose(caller: Caller, of: str) -> str:
    """Return the name of the caller whose mails are asked for, ANY for those of all; empty `of` are the caller's own.

    Raises PermissionDenied where they are another's, and this caller is no operator.
    """
    if not of or of == caller.name:
        return caller.name
    if len(of) > MOST_CHARACTERS:
        raise InvalidArgument("caller", f"is longer than {MOST_CHARACTERS} characters")
    if not caller.may.operate:
        raise PermissionDenied(f"caller: {caller.name} has no mails but its own; {_cure(caller)}")
    return of


def _cure(caller: Caller) -> str:
    if caller.name == ANONYMOUS.name:
        return "only a caller with a token or a certificate can be an operator (`operator = true` in CALLERS_FILE)"
    return f"set `operator = true` in {caller.place}"


class Operators:
    """Finds the caller in whose name an operator's call goes on."""

    def __init__(self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._backlog = backlog

    def __repr__(self) -> str:
        return f"<Operators {self._lifecycle!r}>"

    async def act_for(self, caller: Caller, of: str, mail_id: str) -> Caller:
        """Return the caller that a mail is looked up for: this one, unless another's is asked for by `of` (`whose`).

        Raises PermissionDenied, and NotFound where no caller has the mail. Raises InvalidArgument for ANY without an
        id, since two callers may have the same request id.
        """
        name = whose(caller, of)
        if name == caller.name:
            return caller
        if name == ANY:
            if not mail_id:
                raise InvalidArgument("caller", f"is {ANY}, which goes with an id; name the caller of the request_id")
            name = await self._caller_of(mail_id)
        return Caller(name)

    async def _caller_of(self, mail_id: str) -> str:
        check_mail_id(mail_id)
        await self._backlog.recall(mail_id)
        job = self._lifecycle.find(mail_id)
        name = job.caller if job is not None else await self._store.caller_of(mail_id)
        if name is None:
            raise not_found()
        return name
