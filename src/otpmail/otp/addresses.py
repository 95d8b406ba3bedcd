"""The use cases of an address: show what is known and spent, lift it, forget the address, report on a delivery."""

from enum import Enum
from functools import partial

from otpmail.address import Address, parse_address, refuse_control_characters
from otpmail.callers import ANY_PURPOSE, Call
from otpmail.code_record import Budget
from otpmail.delivery.suppressions import whose
from otpmail.errors import InvalidArgument, LimitExceeded
from otpmail.events import AddressForgotten, AddressReleased, Observer
from otpmail.limits import suppressing
from otpmail.mail.lookup import check_mail_id
from otpmail.mail.service import MailService
from otpmail.mail.undoing import Undoing
from otpmail.otp.request import DEFAULT_PURPOSE, Place, find_place
from otpmail.store.addresses import Rule
from otpmail.store.challenges import ChallengeStore
from otpmail.suppression import Suppression

MAX_DETAIL = 1000

_SHARED = "OTP_SENDS"
_DEFAULT_REASON = "reported by the caller"
_FULL_SECONDS = 3600.0


class Outcome(Enum):
    """A report of a delivery, as a caller has learned of it."""

    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


class AddressService:
    """Shows and erases what is kept of a caller's addresses. Raises InvalidArgument for a text that is no address."""

    def __init__(
        self, store: ChallengeStore, mails: MailService, undoing: Undoing, observer: Observer, *, gmail_dots: bool
    ) -> None:
        self._store = store
        self._mails = mails
        self._undoing = undoing
        self._suppressions = mails.suppressions
        self._observer = observer
        self._gmail_dots = gmail_dots

    def __repr__(self) -> str:
        return f"<AddressService {self._store!r}, {self._suppressions!r}>"

    async def suppression(self, call: Call, email: str) -> Suppression | None:
        """Return why nothing is sent to an address, or no bulk; None where all mail is sent. Raises Unavailable."""
        addresses = self._suppressions.store
        address = parse_address(email, "email")
        record = await addresses.read(whose(call.caller.name, address.spec))
        return None if record is None else record.suppression(addresses.now(), address.spelling, bulk=True)

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

    async def release(self, call: Call, email: str, *, suppression: bool = False, budgets: bool = False) -> None:
        """Lift the suppression or the budgets of an address. Live codes stay, with their attempts and waits.

        The budgets of the mailbox of an address with a tag are lifted too.
        Raises InvalidArgument where neither is asked for.
        """
        place = self._place(call, email)
        if not (suppression or budgets):
            raise InvalidArgument("suppression", "must be true, or budgets, or both: nothing else is lifted")
        lifted: list[str] = []
        if suppression:
            await self._change(call, place.address, suppressing.released)
        if budgets:
            lifted = [f"{one.setting} {one.spent} of {one.limit}" for one in await self.budgets(call, email)]
            for key in filter(None, (place.key, place.mailbox)):
                await self._store.release(key)
        self._observer.notify(AddressReleased(call.caller.name, place.address.spec, tuple(lifted)))

    async def forget(self, call: Call, email: str) -> None:
        """Erase the live codes, budgets and suppression of an address, and it from mails (`mail.forgetting`).

        Its mails count no more for its mailbox, if it has a tag. Codes and failures of the mailbox itself stay.
        """
        place = self._place(call, email)
        # Mails first: the record knows whether one that is cancelled counts for other limits, too.
        mails = await self._mails.forgetting.forget(call.caller, place.address)
        await self._undoing.wait()
        await self._store.forget(place.key, place.earlier, place.mailbox)
        for earlier in self._earlier_of_profiles(call, email):
            await self._store.forget(place.key, earlier)
        await self._change(call, place.address, suppressing.released)
        self._observer.notify(AddressForgotten(call.caller.name, place.address.spec, mails))

    async def report(self, call: Call, email: str, outcome: Outcome, *, mail_id: str = "", detail: str = "") -> None:
        """Suppress or release an address by what its caller has learned. `detail` are its provider's words.

        Raises LimitExceeded where there is no room for a further address.
        """
        address = parse_address(email, "email")
        if mail_id:
            check_mail_id(mail_id, "mail_id")
        if len(detail) > MAX_DETAIL:
            raise InvalidArgument("detail", f"is longer than {MAX_DETAIL} characters")
        refuse_control_characters(detail, "detail")
        now, reason = self._suppressions.store.now(), detail.strip() or _DEFAULT_REASON
        rules: dict[Outcome, Rule] = {
            Outcome.DELIVERED: partial(suppressing.delivered, is_reported=True),
            Outcome.BOUNCED: partial(suppressing.refused, now=now, reason=reason, is_reported=True),
            Outcome.COMPLAINED: partial(suppressing.complained, now=now, reason=reason),
        }
        await self._change(call, address, rules[outcome], mail_id=mail_id)

    async def close(self) -> None:
        """Wait no longer for mails that are still to settle."""
        await self._mails.forgetting.close()

    async def _change(self, call: Call, address: Address, rule: Rule, *, mail_id: str = "") -> None:
        caller = call.caller.name
        changed = await self._suppressions.store.update(whose(caller, address.spec), rule)
        self._suppressions.tell_change(caller, address.spec, changed, call.trace, mail_id=mail_id)
        if changed.is_full:
            text = "no further address can be suppressed: raise SUPPRESSIONS_MAX or MEMORY_MAX_MB"
            raise LimitExceeded("suppressions", text, retry_after=_FULL_SECONDS, setting="SUPPRESSIONS_MAX")

    def _place(self, call: Call, email: str, purpose: str = "") -> Place:
        return find_place(
            call.caller, email, purpose, with_earlier=self._store.reads_earlier, gmail_dots=self._gmail_dots
        )

    def _earlier_of_profiles(self, call: Call, email: str) -> list[bytes]:
        """Return the keys of the records that an earlier version may have kept for the purposes of a caller's profiles.

        That of `DEFAULT_PURPOSE` is left out.
        """
        if not self._store.reads_earlier:
            return []
        purposes = (call.caller.may.profiles or {}).keys() - {ANY_PURPOSE, DEFAULT_PURPOSE}
        return [self._place(call, email, purpose).earlier for purpose in sorted(purposes)]
