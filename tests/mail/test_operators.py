"""Whose mails a call is about: an ordinary caller has its own, an operator those of all."""

import pytest

from otpmail.callers import ANONYMOUS, Caller, Permissions
from otpmail.errors import InvalidArgument, PermissionDenied
from otpmail.mail.operators import ANY, MOST_CHARACTERS, whose

SHOP = Caller("shop", Permissions())
OPS = Caller("ops", Permissions(operate=True))


@pytest.mark.parametrize("caller", [SHOP, OPS])
def test_own_mails(caller: Caller) -> None:
    """Without a name, or with its own, a caller has its own mails."""
    assert whose(caller, "") == whose(caller, caller.name) == caller.name


@pytest.mark.parametrize("of", [ANY, "news", "no-such-caller", "SHOP", "shop ", "anonymous", "*", "\0deferred"])
def test_mails_of_others(of: str) -> None:
    """An ordinary caller is refused whatever name it gives, by a line that says what is missing and where."""
    with pytest.raises(PermissionDenied) as caught:
        whose(SHOP, of)
    assert str(caught.value) == (
        "caller: shop has no mails but its own; set `operator = true` in [callers.shop] of CALLERS_FILE"
    )
    assert whose(OPS, of) == of


def test_anonymous_callers() -> None:
    """Nobody is an operator without having said who it is."""
    with pytest.raises(PermissionDenied, match="only a caller with a token or a certificate can be an operator"):
        whose(ANONYMOUS, "shop")


def test_a_name_that_is_too_long() -> None:
    """A name has as many characters as that of a certificate at most."""
    with pytest.raises(InvalidArgument, match=r"^caller: is longer than 320 characters$"):
        whose(OPS, "x" * (MOST_CHARACTERS + 1))
