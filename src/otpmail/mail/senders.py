"""Decides which addresses a mail may have as its author, its sender and its return path."""

from otpmail.address import Address, parse_mailbox
from otpmail.compose.draft import Draft
from otpmail.errors import PermissionDenied
from otpmail.settings import MailSettings


class Senders:
    """The addresses of EMAIL_FROM and EMAIL_FROM_ALLOWED; `default` is the author of mails that name none."""

    def __init__(self, settings: MailSettings) -> None:
        self.default = parse_mailbox(settings.email_from, "EMAIL_FROM")
        self._allowed = frozenset((self.default.key, *settings.email_from_allowed))

    def __repr__(self) -> str:
        return f"<Senders {self.default.spec} and {len(self._allowed) - 1} more>"

    def author_of(self, draft: Draft) -> Address:
        """Return whom a draft is from. Raises PermissionDenied, which names the field that may not be so.

        The null return path is for everybody: bounces to nobody harm nobody (RFC 5321, 4.5.5).
        """
        if draft.from_ is not None:
            self._check("from", draft.from_)
        if draft.sender is not None:
            self._check("sender", draft.sender)
        if draft.return_path:
            self._check("return_path", Address(draft.return_path))
        return draft.from_ or self.default

    def _check(self, field: str, address: Address) -> None:
        key = address.key
        if key not in self._allowed and key[key.rindex("@") :] not in self._allowed:
            raise PermissionDenied(f"{field}: {address.spec} may not be used: EMAIL_FROM_ALLOWED does not hold it")
