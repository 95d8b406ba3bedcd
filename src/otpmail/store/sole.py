"""The answers of a store that no other process uses, about mails of other processes: there are none."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from otpmail.model import Mail
from otpmail.store.base import Entry, Owner


class SoleOwner(ABC):
    """The part of `store.base.MailStore` about other processes, for a store that one process has to itself."""

    @abstractmethod
    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail while it is remembered, None otherwise."""

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Return what `get` returns: no other process owns mails of this store."""
        return await self.get(caller, mail_id)

    async def watch(self, caller: str, mail_id: str) -> AsyncGenerator[Mail, None]:
        """Yield what `get` returns, for the same reason."""
        mail = await self.get(caller, mail_id)
        if mail is not None:
            yield mail

    def may_send(self) -> bool:
        """Return True: no other process has these mails."""
        return True

    def follow(self, owner: Owner) -> None:  # noqa: B027  doing nothing is its answer
        """Return at once: nobody else asks about these mails."""

    async def arrivals(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield nothing: no other process leaves mails, and those of an earlier one wait (`ContentStore.left`)."""
        entries: Sequence[Sequence[Entry]] = ()
        for some in entries:
            yield some
