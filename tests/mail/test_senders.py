"""The senders of mails: EMAIL_FROM_ALLOWED covers the author, the sender and the return path of a mail."""

from typing import Any

import pytest

from drafts import read_draft
from otpmail.callers import ANONYMOUS, Caller, Permissions
from otpmail.errors import PermissionDenied
from otpmail.mail.senders import Senders
from otpmail.settings import MailSettings
from otpmail.settings.mail import sender_key

pytestmark = pytest.mark.usefixtures("empty_directory")

FIELDS = ("from", "sender", "return_path")


def _senders(**settings: Any) -> Senders:
    return Senders(MailSettings(**{"email_from": "Shop <shop@example.org>", **settings}))


def _draft_with(field: str, text: str) -> Any:
    fields: dict[str, Any] = {"from_" if field == "from" else field: text}
    return read_draft(**fields)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("SHOP@Example.org", True),
        ("boss@example.net", True),
        ("anybody@shop.example", True),
        ("bounces+ada=example.org@shop.example", True),
        ("anybody@xn--bcher-kva.example", True),
        ("anybody@sub.shop.example", False),
        ("anybody@notshop.example", False),
        ("eve@example.org", False),
        ("shop+x@example.org", False),
    ],
)
def test_what_a_mail_may_name(field: str, address: str, permitted: bool) -> None:  # noqa: FBT001
    """Each of the three must be EMAIL_FROM or stand in EMAIL_FROM_ALLOWED, by mailbox or domain."""
    senders = _senders(email_from_allowed="boss@example.net, @shop.example, @bücher.example")
    draft = _draft_with(field, address)
    if permitted:
        assert senders.author_of(draft, ANONYMOUS).spec == (address if field == "from" else "shop@example.org")
        return
    with pytest.raises(PermissionDenied) as caught:
        senders.author_of(draft, ANONYMOUS)
    assert str(caught.value) == f"{field}: {address} may not be used: EMAIL_FROM_ALLOWED does not hold it"


def test_each_of_the_three_is_looked_at() -> None:
    """An allowed author does not allow another sender, nor an allowed sender another return path."""
    senders = _senders(email_from_allowed="@shop.example")
    good = "news@shop.example"
    for field, name in (("from_", "from"), ("sender", "sender"), ("return_path", "return_path")):
        fields: dict[str, Any] = {"from_": good, "sender": good, "return_path": good, field: "eve@example.org"}
        with pytest.raises(PermissionDenied, match=f"^{name}: eve@example.org"):
            senders.author_of(read_draft(**fields), ANONYMOUS)
    assert senders.author_of(read_draft(from_=good, sender=good, return_path=good), ANONYMOUS).spec == good


def test_a_domain_in_a_local_part_does_not_count() -> None:
    """The domain of an address is what follows its last @, also where its local part is quoted."""
    with pytest.raises(PermissionDenied):
        _senders(email_from_allowed="@shop.example").author_of(
            read_draft(return_path='"a@shop.example"@evil.example'), ANONYMOUS
        )


def test_bounces_to_nobody_are_for_everybody() -> None:
    """The null return path needs no permission, also where nothing but EMAIL_FROM is allowed."""
    assert _senders().author_of(read_draft(return_path=""), ANONYMOUS).spec == "shop@example.org"
    draft = read_draft(from_="shop@example.org", return_path="")
    assert _senders().author_of(draft, ANONYMOUS).spec == "shop@example.org"


@pytest.mark.parametrize(("field", "key"), [("from", "from"), ("sender", "from"), ("return_path", "return_paths")])
def test_a_caller_with_addresses_of_its_own(field: str, key: str) -> None:
    """A caller that has addresses of its own has them in place of EMAIL_FROM_ALLOWED, and EMAIL_FROM in any case."""
    own = frozenset({"news@shop.example", "@list.example"})
    shop = Caller("shop", Permissions(senders=own, return_paths=own))
    senders = _senders(email_from_allowed="boss@example.net")
    for address in ("news@shop.example", "x@list.example", "shop@example.org"):
        senders.author_of(_draft_with(field, address), shop)
    with pytest.raises(PermissionDenied) as caught:
        senders.author_of(_draft_with(field, "boss@example.net"), shop)
    words = f"may not be used by shop; add it to `{key}` in [callers.shop] of CALLERS_FILE"
    assert str(caught.value) == f"{field}: boss@example.net {words}"


@pytest.mark.parametrize(("field", "key"), [("from", "from"), ("sender", "from"), ("return_path", "return_paths")])
def test_a_caller_without_addresses_of_its_own(field: str, key: str) -> None:
    """A caller whose table names no addresses has those of EMAIL_FROM_ALLOWED; the refusal names both places."""
    with pytest.raises(PermissionDenied) as caught:
        _senders(email_from_allowed="boss@example.net").author_of(_draft_with(field, "eve@example.org"), Caller("shop"))
    words = f"EMAIL_FROM_ALLOWED does not hold it; add it there, or to `{key}` in [callers.shop] of CALLERS_FILE"
    assert str(caught.value) == f"{field}: eve@example.org may not be used: {words}"


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("News <news@shop.example>", True),
        ('"boss@example.net" <news@shop.example>', True),
        ("NEWS@Shop.EXAMPLE", True),
        ("news@LIST.example", True),
        ("b\u00fccher@b\u00fccher.example", True),
        ("x@xn--bcher-kva.example", True),
        ("x@B\u00dcCHER.example", True),
        ('"news@shop.example" <eve@evil.example>', False),
        ("news+eve@shop.example", False),
        ("other@shop.example", False),
        ("x@sub.list.example", False),
        ("x@evil-list.example", False),
        ("x@list.example.evil.example", False),
        ("x@bucher.example", False),
        ("new\u017f@shop.example", False),
        ("\uff4eews@shop.example", False),
    ],
)
def test_spellings_of_a_callers_addresses(address: str, permitted: bool) -> None:  # noqa: FBT001  a column of the table
    """An address counts in any spelling of the same mailbox, whatever its display name is; a tag makes another one."""
    senders = _senders(email_from_allowed="@evil.example")
    own = frozenset(sender_key(entry) for entry in ("news@shop.example", "@list.example", "@b\u00fccher.example"))
    draft = read_draft(from_=address)
    shop = Caller("shop", Permissions(senders=own, return_paths=own))
    if permitted:
        senders.author_of(draft, shop)
    else:
        with pytest.raises(PermissionDenied, match=r"^from: .* may not be used by shop; add it to `from` in "):
            senders.author_of(draft, shop)


def test_the_repr_counts() -> None:
    """The repr shows EMAIL_FROM and how many entries there are beside it."""
    assert repr(_senders(email_from_allowed="a@b.org, @c.org")) == "<Senders shop@example.org and 2 more>"
