"""The reason that a merge gives for a mail that was not relayed, and the file that lists them."""

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
                    state=mail_pb2.Mail.STATE_FAILED,
                    recipients=[mail_pb2.RecipientResult(code=550, enhanced_code="5.1.1", reply="no such user")],
                )
            ),
            ("550", "5.1.1 no such user"),
        ),
        (Result(mail=mail_pb2.Mail(state=99)), ("99", "the relay did not reply")),  # type: ignore[arg-type]
        (Result(mail=mail_pb2.Mail(state=mail_pb2.Mail.STATE_EXPIRED)), ("EXPIRED", "the relay did not reply")),
        (
            Result(
                mail=mail_pb2.Mail(
                    state=mail_pb2.Mail.STATE_UNCERTAIN, recipients=[mail_pb2.RecipientResult(code=451, reply="later")]
                )
            ),
            ("UNCERTAIN", "later"),
        ),
    ],
)
def test_why_a_mail_was_not_relayed(result: Result, said: tuple[str, str]) -> None:
    """A refused mail has the code of the service or of the relay; any other mail has its state."""
    assert why(result) == said


def test_the_errors_file(tmp_path: Path) -> None:
    """The file opens before sending, has its lines after each flush, and is deleted by a whole run without errors."""
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
    with pytest.raises(MergeError, match=r"^--errors: .*: cannot be written: "), ErrorsFile(tmp_path / "no" / "x.csv"):
        pass


@pytest.mark.parametrize("left", ["", "row,em", "row,email,code,message\n7,ada@example.org,550,no\n"])
def test_the_file_of_a_killed_run_is_replaced(tmp_path: Path, left: str) -> None:
    """Complete, cut off or empty, FILE.new belongs to the merge."""
    new = tmp_path / "errors.csv.new"
    new.write_text(left)
    with ErrorsFile(tmp_path / "errors.csv"):
        pass
    assert not new.exists()


def test_no_other_file_is_replaced(tmp_path: Path) -> None:
    """A file that is not a list of errors is kept and named, also in the place of FILE.new."""
    path = tmp_path / "notes.txt.new"
    path.write_text("precious")
    for named in (path, tmp_path / "notes.txt"):
        with pytest.raises(MergeError, match=r"^--errors: .*notes\.txt\.new: exists"), ErrorsFile(named):
            pass
    assert path.read_text() == "precious"
