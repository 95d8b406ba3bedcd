"""Decides which addresses a mail may have as its author, its sender and its return path."""

from collections.abc import Collection

from otpmail.address import Address, parse_mailbox
from otpmail.callers import ANONYMOUS, Caller
from otpmail.compose.draft import Draft
from otpmail.errors import PermissionDenied
from otpmail.settings import MailSettings


class Senders:
    """The addresses of EMAIL_FROM and EMAIL_FROM_ALLOWED; `default` is the author of mails that name none.

    A caller may have its own addresses in place of EMAIL_FROM_ALLOWED.
    """

    def __init__(self, settings: MailSettings) -> None:
        self.default = parse_mailbox(settings.email_from, "EMAIL_FROM")
        self._allowed = frozenset((self.default.key, *settings.email_from_allowed))

    def __repr__(self) -> str:
        return f"<Senders {self.default.spec} and {len(self._allowed) - 1} more>"

    def author_of(self, draft: Draft, caller: Caller) -> Address:
        """Return whom a draft is from. Raises PermissionDenied, which names the field that may not be so.

        The null return path is for everybody: bounces to nobody harm nobody (RFC 5321, 4.5.5).
        """
        if draft.from_ is not None:
            self._check("from", draft.from_, caller, caller.may.senders, "from")
        if draft.sender is not None:
            self._check("sender", draft.sender, caller, caller.may.senders, "from")
        if draft.return_path:
            address = Address(draft.return_path)
            self._check("return_path", address, caller, caller.may.return_paths, "return_paths")
        return draft.from_ or self.default

    def _check(self, field: str, address: Address, caller: Caller, own: Collection[str] | None, own_key: str) -> None:
        """Raise PermissionDenied unless the address, or its domain, is among the caller's `own`, or those of all."""
        key = address.key
        allowed = self._allowed if own is None else own
        if key in allowed or key[key.rindex("@") :] in allowed or key == self.default.key:
            return
        what = f"{field}: {address.spec} may not be used"
        if own is None:
            # Where callers are not asked, there is no table to add it to.
            places = "" if caller.name == ANONYMOUS.name else f"; add it there, or to `{own_key}` in {caller.place}"
            raise PermissionDenied(f"{what}: EMAIL_FROM_ALLOWED does not hold it{places}")
        raise PermissionDenied(f"{what} by {caller.name}; add it to `{own_key}` in {caller.place}")
