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
