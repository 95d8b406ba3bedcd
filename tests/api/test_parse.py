"""Parsing requests: what is no request, and what is too large, becomes an error for the caller."""

import pytest
from google.protobuf.message import Message

from drafts import LIMITS
from octets import text
from otpmail.api.bounds import bounds_of_mail
from otpmail.api.parse import SMALL, parse, parsers
from otpmail.errors import InvalidArgument
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import mail_pb2, otp_pb2

_SERVICES = [service for contract in (otp_pb2, mail_pb2) for service in contract.DESCRIPTOR.services_by_name.values()]


@pytest.mark.parametrize("kind", [otp_pb2.SendCodeRequest, mail_pb2.WatchMailRequest, original_pb2.SendCodeRequest])
@pytest.mark.parametrize("octets", [b"\xff" * 20, text(1, b"\xff\xfe"), b"\x0a\x05ab"], ids=bytes.hex)
def test_octets_that_are_no_request(kind: type[Message], octets: bytes) -> None:
    """Octets that protobuf can't parse, bad UTF-8 among them, are refused in fixed words that name the message."""
    with pytest.raises(InvalidArgument) as caught:
        parse(octets, kind)
    assert str(caught.value) == f"request: is no {kind.DESCRIPTOR.full_name}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_large_octets_that_are_no_request() -> None:
    """Octets over the size are refused in the same words, whether the reader or protobuf finds the fault."""
    bounds = bounds_of_mail(LIMITS)
    large = text(5, b"x" * SMALL)
    for octets in (large + b"\xff" * 20, large + text(4, b"\xff")):
        with pytest.raises(InvalidArgument, match=r"^request: is no otpmail\.v1\.SendMailRequest$"):
            parse(octets, mail_pb2.SendMailRequest, bounds)


def test_a_request_over_the_size_needs_bounds() -> None:
    """A request without bounds has 64 KiB at most; the error names the field that has most of it."""
    request = otp_pb2.SendCodeRequest(email="ada@example.org", variables={"a": "x" * 30_000, "b": "x" * 30_000})
    assert parse(request.SerializeToString(), otp_pb2.SendCodeRequest) == request
    request.variables["c"] = "x" * 5_500
    with pytest.raises(InvalidArgument) as caught:
        parse(request.SerializeToString(), otp_pb2.SendCodeRequest)
    assert str(caught.value) == "variables: makes the request larger than 65536 octets"


@pytest.mark.parametrize("octets", [b"\xff" * (SMALL + 1), text(99, b"x" * SMALL)], ids=["none", "unknown"])
def test_a_request_over_the_size_without_a_field_to_blame(octets: bytes) -> None:
    """Where no field of the message has most of the octets, the error names the message."""
    with pytest.raises(InvalidArgument, match=r"^GetMailRequest: makes the request larger than 65536 octets$"):
        parse(octets, mail_pb2.GetMailRequest)


def test_a_large_request_within_its_bounds_is_parsed() -> None:
    """A request over the size that keeps its bounds is parsed, and one beyond them is refused."""
    bounds = bounds_of_mail(LIMITS)
    request = mail_pb2.SendMailRequest(to=["ada@example.org"], text="x" * SMALL)
    assert parse(request.SerializeToString(), mail_pb2.SendMailRequest, bounds) == request
    request.to.extend(["ada@example.org"] * LIMITS.recipients)
    with pytest.raises(InvalidArgument, match=r"^to: there are more than 100$"):
        parse(request.SerializeToString(), mail_pb2.SendMailRequest, bounds)


def test_each_method_with_one_request_has_its_parser() -> None:
    """Each method has a parser of its kind of request, except one that reads a stream of them."""
    found = parsers(_SERVICES, [bounds_of_mail(LIMITS)])
    assert sorted(found) == [
        "/otpmail.v1.MailService/CancelMail",
        "/otpmail.v1.MailService/GetMail",
        "/otpmail.v1.MailService/ListMails",
        "/otpmail.v1.MailService/RetryMail",
        "/otpmail.v1.MailService/SendMail",
        "/otpmail.v1.MailService/WatchMail",
        "/otpmail.v1.OtpService/RevokeCode",
        "/otpmail.v1.OtpService/SendCode",
        "/otpmail.v1.OtpService/ValidateCode",
    ]
    large = text(5, b"x" * SMALL)
    assert found["/otpmail.v1.MailService/SendMail"](large) == mail_pb2.SendMailRequest(text="x" * SMALL)
    with pytest.raises(InvalidArgument):
        found["/otpmail.v1.OtpService/SendCode"](large)
