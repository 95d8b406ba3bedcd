"""The line for a call whose request the service refuses."""

import grpc
import pytest

from otpmail.cli.call import failure
from otpmail.v1 import mail_pb2

REQUEST = mail_pb2.SendMailRequest(to=["ada@example.org", "a b"], subject="x" * 1000)


class _Refused(grpc.RpcError):
    """An answer of INVALID_ARGUMENT."""

    def __init__(self, said: str) -> None:
        self._said = said

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INVALID_ARGUMENT

    def details(self) -> str:
        return self._said

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("to[1]: is not a mailbox address", "to[1]: 'a b' is not a mailbox address"),
        ("to[2]: is not a mailbox address", "to[2]: is not a mailbox address"),
        ("to: there are more than 100 recipients", "to: there are more than 100 recipients"),
        ("to: is too much", "to: is too much"),
        ("text: is empty", "text: is empty"),
        ("subject: is longer than 998 characters", "subject: is longer than 998 characters"),
        ("priority: is not known", "priority: is not known"),
        ("nothing: is here", "nothing: is here"),
    ],
)
def test_a_wrong_value(said: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A short text that the service refuses is repeated behind the name of its field, and nothing else is."""
    assert failure(_Refused(said), "a:1", 1, REQUEST).exit_code == 2
    assert capsys.readouterr().err == f"{printed}\n"


@pytest.mark.parametrize("fault", ["is not a mailbox address", "looks like several mailboxes"])
@pytest.mark.parametrize("text", ["a@x.org,b@x.org", "a@x.org; b@x.org", "A <a@x.org>, B <b@x.org>"])
@pytest.mark.parametrize(("field", "option"), [("to", "--to"), ("reply_to", "--reply-to")])
def test_several_addresses_in_one_value(
    field: str, option: str, text: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a value holds several addresses, the line says that its option may be repeated."""
    request = mail_pb2.SendMailRequest(to=[text], reply_to=[text])
    assert failure(_Refused(f"{field}[0]: {fault}"), "a:1", 1, request).exit_code == 2
    assert capsys.readouterr().err == f"{field}[0]: {text!r} {fault}; give {option} once for each address\n"


def test_a_wrong_header() -> None:
    """A fault of a field whose values are no text is printed as the service said it."""
    request = mail_pb2.SendMailRequest(headers=[mail_pb2.Header(name="a", value="a@x.org,b@x.org")])
    assert failure(_Refused("headers[0]: is not allowed"), "a:1", 1, request).exit_code == 2
