"""Batches of mails: a large one is cut into its mails, and a faulty mail is one mail's fault."""

import asyncio
from typing import Any

import pytest

from cost import lines_run
from drafts import ADA, LIMITS
from octets import group, text
from otpmail.api.batches import MAX_MAILS, BatchReader, UnparsedMail
from otpmail.api.parse import SMALL
from otpmail.cooperate import Cooperator
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.v1 import mail_pb2

MAILS = 1  # the number of the field
REQUEST_ID = mail_pb2.SendMailRequest.REQUEST_ID_FIELD_NUMBER


async def _give_way() -> None:
    await asyncio.sleep(0)


def _reader() -> BatchReader:
    return BatchReader(LIMITS, Cooperator(), _give_way)


def _mail(name: str, **fields: Any) -> bytes:
    return mail_pb2.SendMailRequest(to=[ADA], request_id=name, **fields).SerializeToString()


def _batch(*mails: bytes) -> bytes:
    return b"".join(text(MAILS, mail) for mail in mails)


def _submissions(octets: bytes) -> list[tuple[str, Submission | str]]:
    """Return the name of each mail of a batch, and its submission or the error in it."""

    async def read() -> list[tuple[str, Submission | str]]:
        found: list[tuple[str, Submission | str]] = []
        mails, decode = _reader().read(octets)
        for mail in mails:
            try:
                found.append((mail.request_id, await decode(mail)))
            except InvalidArgument as error:
                found.append((mail.request_id, str(error)))
        return found

    return asyncio.run(read())


def test_a_small_and_a_large_batch_give_the_same_submissions() -> None:
    """A batch that is parsed as a whole gives what the same mails give one by one in a large batch."""
    mails = [_mail(f"m{number}", subject="s" * number, labels={"a": "1"}) for number in range(20)]
    small = _batch(*mails)
    filler = _mail("filler", text="x" * SMALL)
    assert not any(isinstance(mail, UnparsedMail) for mail in _reader().read(small)[0])
    large = _batch(*mails, filler)
    assert all(isinstance(mail, UnparsedMail) for mail in _reader().read(large)[0])
    assert _submissions(large)[:-1] == _submissions(small)


@pytest.mark.parametrize("filler", [b"", _mail("filler", text="x" * SMALL)], ids=["small", "large"])
@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (text(REQUEST_ID, b"bad") + text(4, b"\xff\xfe"), "bad"),
        (text(REQUEST_ID, b"bad") + b"\xff" * 20, "bad"),
        (b"\xff" * 20, ""),
        (text(REQUEST_ID, b"\xff"), ""),
        (text(REQUEST_ID, b"first") + text(4, b"\xff") + text(REQUEST_ID, b"bad"), "bad"),
        (text(4, b"") * 9000 + text(4, b"\xff") + text(REQUEST_ID, b"bad"), "bad"),
        (text(4, b"") * 10_000 + text(4, b"\xff") + text(REQUEST_ID, b"late"), ""),
    ],
)
def test_a_mail_that_can_not_be_parsed_is_alone_in_it(fault: bytes, name: str, filler: bytes) -> None:
    """A mail that is no SendMailRequest has an error of its own, under its request id where that can be found."""
    found = _submissions(_batch(_mail("a"), fault, _mail("b"), *filter(None, [filler])))
    assert [one for one, _ in found][:3] == ["a", name, "b"]
    assert found[1][1] == "mails[1]: is no otpmail.v1.SendMailRequest"
    assert all(isinstance(submission, Submission) for one, submission in found if one in {"a", "b", "filler"})


def test_a_mail_beyond_its_bounds_is_alone_in_it() -> None:
    """A large mail of a batch is held to the bounds of its fields when its turn comes."""
    too_many = mail_pb2.SendMailRequest(to=[ADA] * 101, text="x" * SMALL, request_id="b").SerializeToString()
    far_too_many = mail_pb2.SendMailRequest(to=[ADA] * 9000, request_id="c").SerializeToString()
    found = _submissions(_batch(_mail("a"), too_many, far_too_many, _mail("d")))
    assert [name for name, _ in found] == ["a", "b", "c", "d"]
    assert found[1][1] == found[2][1] == "to: there are more than 100"


@pytest.mark.parametrize(
    "octets", [b"\xff" * 20, b"\x0a\x05ab", text(1, b"x" * SMALL) + b"\xff"], ids=["none", "cut", "large"]
)
def test_octets_that_are_no_batch(octets: bytes) -> None:
    """Octets that can't be cut into mails are refused as a whole."""
    with pytest.raises(InvalidArgument, match=r"^mails: the request is no SendMailsRequest$"):
        _reader().read(octets)


@pytest.mark.parametrize("count", [MAX_MAILS + 1, 1_000_000])
def test_a_batch_of_too_many_mails_is_refused(count: int) -> None:
    """A batch has a greatest number of mails; a batch of any number costs no more than one that has one too many."""
    reader = _reader()
    assert len(reader.read(_batch(b"") * MAX_MAILS)[0]) == MAX_MAILS
    octets = _batch(b"") * count

    def read() -> None:
        with pytest.raises(InvalidArgument, match=r"^mails: there are more than 10000 in one request$"):
            reader.read(octets)

    assert lines_run(read) < 500_000


@pytest.mark.parametrize("other", [text(2, b""), group(3, b"")], ids=["text", "group"])
def test_other_fields_of_a_batch_are_bounded(other: bytes) -> None:
    """A few fields that are no mails are let through; many are refused."""
    filler = _batch(_mail("filler", text="x" * SMALL))
    assert len(_reader().read(other * 400 + filler)[0]) == 1
    with pytest.raises(InvalidArgument, match=r"^SendMailsRequest: holds more than 1000 fields"):
        _reader().read(other * 1_000_000 + filler)
