"""What is said of a mail of a merge that was not relayed, and the file that lists them."""

from pathlib import Path

import pytest
from google.rpc import code_pb2

from otpmail.cli.merge.csv_source import MergeError, Row
from otpmail.cli.merge.error_report import ErrorsFile, why
from otpmail.v1 import mail_pb2

Result = mail_pb2.SendMailsResponse.Result


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(code=code_pb2.INVALID_ARGUMENT, message="to[0]: no"), ("INVALID_ARGUMENT", "to[0]: no")),
        (Result(code=99, message="new"), ("99", "new")),
        (
            Result(
                mail=mail_pb2.Mail(
                    state=mail_pb2.Mail.FAILED,
                    recipients=[mail_pb2.RecipientResult(code=550, enhanced_code="5.1.1", reply="no such user")],
                )
            ),
            ("550", "5.1.1 no such user"),
        ),
        (Result(mail=mail_pb2.Mail(state=99)), ("99", "the relay gave no answer")),  # type: ignore[arg-type]
        (Result(mail=mail_pb2.Mail(state=mail_pb2.Mail.EXPIRED)), ("EXPIRED", "the relay gave no answer")),
        (
            Result(
                mail=mail_pb2.Mail(
                    state=mail_pb2.Mail.UNCERTAIN, recipients=[mail_pb2.RecipientResult(code=451, reply="later")]
                )
            ),
            ("UNCERTAIN", "later"),
        ),
    ],
)
def test_why_a_mail_was_not_relayed(result: Result, said: tuple[str, str]) -> None:
    """The service's code for what it refused, the relay's for what that refused, else the state."""
    assert why(result) == said


def test_the_errors_file(tmp_path: Path) -> None:
    """It opens before anything is sent, is on disk after each flush, and is gone where a whole run had no errors."""
    path, new = tmp_path / "errors.csv", tmp_path / "errors.csv.new"
    earlier = "row,email,code,message\n2,ada@example.org,550,no\n"
    path.write_text(earlier)
    errors = ErrorsFile(path)
    with errors:
        errors.add(Row(7, "ada@example.org", mail_pb2.SendMailRequest()), "550", 'no, "really"')
        errors.flush()
        listed = ["row,email,code,message", '7,ada@example.org,550,"no, ""really"""']
        assert new.read_text().splitlines() == listed
        assert path.read_text() == earlier
    assert path.read_text().splitlines() == listed
    with ErrorsFile(path):  # it was interrupted
        pass
    assert path.read_text().splitlines() == listed
    errors = ErrorsFile(path)
    with errors:
        errors.complete = True
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MergeError, match=r"^--errors: .*: can't be written: "), ErrorsFile(tmp_path / "no" / "x.csv"):
        pass


@pytest.mark.parametrize("left", ["", "row,em", "row,email,code,message\n7,ada@example.org,550,no\n"])
def test_what_a_killed_run_left_is_replaced(tmp_path: Path, left: str) -> None:
    """Whole, torn, or empty, FILE.new is the run's own."""
    new = tmp_path / "errors.csv.new"
    new.write_text(left)
    with ErrorsFile(tmp_path / "errors.csv"):
        pass
    assert not new.exists()


def test_no_other_file_is_replaced(tmp_path: Path) -> None:
    """A file that is no list of failures is somebody's, one in the place of FILE.new too: it stays, and is named."""
    path = tmp_path / "notes.txt.new"
    path.write_text("precious")
    for named in (path, tmp_path / "notes.txt"):
        with pytest.raises(MergeError, match=r"^--errors: .*notes\.txt\.new: is there"), ErrorsFile(named):
            pass
    assert path.read_text() == "precious"
