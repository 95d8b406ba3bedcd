"""Each caller has a share of what every store remembers: no flood of another takes it away."""

import pytest

from otpmail.store.base import Accepted, Earlier, MailStore, Request
from store.entries import REMEMBER_COUNT, entry_of, mail_of, settled

MOST = 60
"""Request ids that a store keeps (MAIL_REQUEST_COUNT)."""


async def _send(mails: MailStore, caller: str, name: str, *, has_request: bool = True) -> None:
    """Let a mail of that caller settle, one with a request id without having been kept before."""
    mail = mail_of(f"{caller}-{name}", caller=caller, request_id=name if has_request else "", create_time=1000.0)
    if has_request:
        assert await mails.claim(Request(caller, name, b"f"), mail.id) == Accepted()
    else:
        assert await mails.accept([entry_of(mail)]) == [Accepted()]
    mails.settle(settled(mail))


async def _forget(mails: MailStore, caller: str, name: str) -> None:
    """Forget what is too much, where a store does so once in a while, after the latest mail of a caller."""
    if forget := getattr(mails, "forget_ended", None):
        await mails.find(caller, name)  # which waits for what was noted of it
        await forget()


@pytest.mark.requests(most=MOST)
async def test_a_flood_of_request_ids(mails: MailStore) -> None:
    """A repeated request has its first answer, however many requests another caller has sent since."""
    for number in range(3):
        await _send(mails, "shop", f"r{number}")
    for number in range(3 * MOST):
        await _send(mails, "flood", str(number))
        if number % 50 == 0:
            await _forget(mails, "flood", str(number))
    await _forget(mails, "flood", str(3 * MOST - 1))
    for number in range(3):
        again = await mails.claim(Request("shop", f"r{number}", b"f"), "another")
        assert isinstance(again, Earlier)
        assert again.mail.id == f"shop-r{number}"
    found = [number for number in range(3 * MOST) if await mails.find("flood", str(number)) is not None]
    assert MOST // 2 < len(found) <= MOST
    assert 0 not in found


@pytest.mark.requests(most=MOST)
async def test_a_flood_of_mails(mails: MailStore) -> None:
    """A caller's mails are remembered, however many another caller has sent since, with and without request ids."""
    await _send(mails, "shop", "a", has_request=False)
    await _send(mails, "shop", "b")
    for number in range(8 * REMEMBER_COUNT):
        await _send(mails, "flood", str(number), has_request=bool(number % 2))
    await _forget(mails, "flood", str(8 * REMEMBER_COUNT - 1))
    for name in "ab":
        found = await mails.get("shop", f"shop-{name}")
        assert found is not None
        assert found.id == f"shop-{name}"


@pytest.mark.requests(most=MOST)
async def test_callers_who_share(mails: MailStore) -> None:
    """Of two floods the larger one loses more, and each keeps as many as the other."""
    for number in range(4 * MOST):
        await _send(mails, "large", str(number))
        if number % 4 == 0:
            await _send(mails, "small", str(number))
    await _forget(mails, "large", str(4 * MOST - 1))
    for caller, step in (("large", 1), ("small", 4)):
        kept = [number for number in range(0, 4 * MOST, step) if await mails.find(caller, str(number)) is not None]
        assert len(kept) >= MOST // 4
