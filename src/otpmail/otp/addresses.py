"""The use cases of an address: show what of its budgets is spent, lift them, and forget the address."""

from otpmail.callers import Call
from otpmail.model import Budget
from otpmail.otp.request import find_place
from otpmail.store.challenges import ChallengeStore


class AddressService:
    """What the store keeps of the addresses of a caller. Each method raises InvalidArgument for a text that is none."""

    def __init__(self, store: ChallengeStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<AddressService {self._store!r}>"

    async def budgets(self, call: Call, email: str) -> tuple[Budget, ...]:
        """Return of which limits strangers have spent something at an address, and how much."""
        return await self._store.budgets(find_place(call.caller, email, "").key)

    async def release(self, call: Call, email: str, *, budgets: bool) -> None:
        """Lift the budgets of an address, if that is asked for. Live codes stay, with their attempts and waits."""
        key = find_place(call.caller, email, "").key
        if budgets:
            await self._store.release(key)

    async def forget(self, call: Call, email: str) -> None:
        """Erase the live codes and the budgets of an address."""
        await self._store.forget(find_place(call.caller, email, "").key)
