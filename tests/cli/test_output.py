"""The lines for a call that failed, and for a mail."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otpmail.cli.output import describe_error, print_mail
from otpmail.v1 import mail_pb2


class _Error(grpc.RpcError):
    """An error of a call, as gRPC makes it of a service's answer."""

    def __init__(self, code: grpc.StatusCode, said: str, details: bytes) -> None:
        self._code, self._said, self._details = code, said, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._said

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:  # type: ignore[override]  # the stubs know no pairs
        return (("grpc-status-details-bin", self._details),)


def _retry_after(milliseconds: int) -> bytes:
    retry, packed = RetryInfo(), Any()
    retry.retry_delay.FromMilliseconds(milliseconds)
    packed.Pack(retry)
    status: bytes = Status(details=[packed]).SerializeToString()
    return status


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, 1), (44_001, 45), (45_000, 45)])
def test_when_to_try_again(milliseconds: int, seconds: int) -> None:
    """An error whose details have a delay ends with it, in whole seconds and never less."""
    error = _Error(grpc.StatusCode.RESOURCE_EXHAUSTED, "too soon", _retry_after(milliseconds))
    assert describe_error(error, "a:1", 1) == f"RESOURCE_EXHAUSTED: too soon; try again in {seconds} s"


@pytest.mark.parametrize("details", [Status().SerializeToString(), b"\xff"])
def test_without_a_time(details: bytes) -> None:
    """An error without a delay, or with details of an unknown form, is its code and its message."""
    assert describe_error(_Error(grpc.StatusCode.INTERNAL, "it broke", details), "a:1", 1) == "INTERNAL: it broke"


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND])
def test_a_wrong_argument(code: grpc.StatusCode) -> None:
    """An error about an argument is the service's message alone, which opens with the field."""
    assert describe_error(_Error(code, "to: is empty", b""), "a:1", 1) == "to: is empty"


@pytest.mark.parametrize(
    ("state", "said"),
    [("QUEUED", "no reply yet"), ("SENDING", "no reply yet"), ("CANCELLED", "no reply"), ("EXPIRED", "no reply")],
)
def test_a_recipient_without_a_reply(state: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipient for whom the relay has not replied waits for a reply only while the mail has not settled."""
    result = mail_pb2.RecipientResult(address="ada@example.org")
    print_mail(mail_pb2.Mail(id="m1", state=mail_pb2.Mail.State.Value(f"STATE_{state}"), recipients=[result]))
    assert capsys.readouterr().out.splitlines()[1] == f"  ada@example.org: {said}"
