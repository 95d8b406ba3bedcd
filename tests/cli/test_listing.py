"""The lines of `otpmail mail list`: one a mail, as wide as the terminal."""

from io import StringIO

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console

from otpmail.cli import listing
from otpmail.v1 import mail_pb2

_ID = "0" * 31
_REPLY = "Recipient address rejected: User unknown in virtual mailbox table"


def _mail(number: int, state: str, *recipients: tuple[str, int], caller: str = "") -> mail_pb2.Mail:
    return mail_pb2.Mail(
        id=f"{_ID}{number}",
        state=mail_pb2.Mail.State.Value(f"STATE_{state}"),
        create_time=Timestamp(seconds=1_790_000_000),
        caller=caller,
        recipients=[
            mail_pb2.RecipientResult(address=address, code=code, reply="queued" if code == 250 else _REPLY)
            for address, code in recipients
        ],
    )


def _mails(caller: str = "") -> list[mail_pb2.Mail]:
    return [
        _mail(1, "RELAYED", ("ada@example.org", 250), caller=caller),
        _mail(2, "PARTIAL", ("bob@example.org", 250), ("a-rather-long-name@mail.example.org", 550), caller=caller),
        _mail(3, "QUEUED", caller=caller),
        _mail(4, "FAILED", ("名前名前名前名前名前名前@例え.jp", 550), caller=caller),
    ]


def _printed(monkeypatch: pytest.MonkeyPatch, mails: list[mail_pb2.Mail], width: int, *, terminal: bool) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, soft_wrap=True)
    monkeypatch.setattr(listing, "out", console)
    listing.print_lines(mails, with_heads=True)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("caller", ["", "shop"])
@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_line_a_mail_on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, caller: str) -> None:
    """Each mail has one line, no wider than the terminal, in columns below their heads."""
    heads, *lines = _printed(monkeypatch, _mails(caller), width, terminal=True)
    assert [line.split()[0] for line in lines] == [f"{_ID}{number}" for number in (1, 2, 3, 4)]
    assert max(map(cell_len, (heads, *lines))) <= width
    if width >= 80:
        states = heads.index("state")
        assert [line[states:].split()[0] for line in lines] == ["relayed", "partial", "queued", "failed"]
        assert heads.split()[:4] == ["id", "state", "accepted", "(UTC)"]
        assert ("caller" in heads.split()) is bool(caller)


def test_an_address_has_room_on_a_usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns an address of usual length is whole, and at 120 the reply begins behind it."""
    for width, said in ((80, "ada@example.org"), (120, f"{'ada@example.org':<29}  250 queued")):
        _, line, *_ = _printed(monkeypatch, _mails(), width, terminal=True)
        assert line == f"{_ID}1  relayed  2026-09-21 14:13  {said}"


def test_a_line_a_mail_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs get whole lines without heads; the reply of several is that of the first who did not get the mail."""
    ada, bob, waiting, name = _printed(monkeypatch, _mails("shop"), 40, terminal=False)
    assert ada == f"{_ID}1  relayed  2026-09-21 14:13  shop  ada@example.org  250 queued"
    assert bob == f"{_ID}2  partial  2026-09-21 14:13  shop  bob@example.org +1  550 {_REPLY}"
    assert waiting == f"{_ID}3  queued  2026-09-21 14:13  shop  -"
    assert name.endswith(f"  shop  名前名前名前名前名前名前@例え.jp  550 {_REPLY}")


def test_no_mails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without mails is no line, not even heads."""
    assert _printed(monkeypatch, [], 80, terminal=True) == []
