"""The use cases of an address: show what of its budgets is spent, lift them, and forget the address."""

from otpmail.call_events import AddressForgotten, AddressReleased
from otpmail.callers import Call
from otpmail.code_record import Budget
from otpmail.events import Observer
from otpmail.mail.service import MailService
from otpmail.otp.request import Place, find_place
from otpmail.store.challenges import ChallengeStore

_SHARED = "OTP_SENDS"


class AddressService:
    """What the store keeps of the addresses of a caller. Each method raises InvalidArgument for a text that is none."""

    def __init__(self, store: ChallengeStore, mails: MailService, observer: Observer, *, gmail_dots: bool) -> None:
        self._store = store
        self._mails = mails
        self._observer = observer
        self._gmail_dots = gmail_dots

    def __repr__(self) -> str:
        return f"<AddressService {self._store!r}>"

    async def budgets(self, call: Call, email: str) -> tuple[Budget, ...]:
        """Return of which limits strangers have spent something at an address, and how much.

        An address with a tag shares the limits of mails of its mailbox.
        """
        place = self._place(call, email)
        found = await self._store.budgets(place.key)
        if not place.mailbox:
            return found
        shared = await self._store.budgets(place.mailbox)
        own = [budget for budget in found if not budget.setting.startswith(_SHARED)]
        return (*own, *[budget for budget in shared if budget.setting.startswith(_SHARED)])

    async def release(self, call: Call, email: str, *, budgets: bool) -> None:
        """Lift the budgets of an address, if that is asked for. Live codes stay, with their attempts and waits.

        Those of the mailbox of an address with a tag are lifted too.
        """
        place = self._place(call, email)
        lifted: list[str] = []
        if budgets:
            lifted = [f"{one.setting} {one.spent} of {one.limit}" for one in await self.budgets(call, email)]
            for key in filter(None, (place.key, place.mailbox)):
                await self._store.release(key)
        self._observer.notify(AddressReleased(call.caller.name, place.address.spec, tuple(lifted)))

    async def forget(self, call: Call, email: str) -> None:
        """Erase the live codes and the budgets of an address, and the address from mails (`mail.forgetting`)."""
        place = self._place(call, email)
        await self._store.forget(place.key, place.earlier)
        mails = await self._mails.forgetting.forget(call.caller, place.address)
        self._observer.notify(AddressForgotten(call.caller.name, place.address.spec, mails))

    async def close(self) -> None:
        """Wait no longer for mails that are still to settle."""
        await self._mails.forgetting.close()

    def _place(self, call: Call, email: str) -> Place:
        return find_place(call.caller, email, "", with_earlier=self._store.reads_earlier, gmail_dots=self._gmail_dots)
