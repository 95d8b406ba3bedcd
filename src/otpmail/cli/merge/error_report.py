"""The mails of a merge that were not relayed: the reason, and the CSV file that lists them."""

import csv
from pathlib import Path
from typing import TextIO

from google.rpc import code_pb2

from otpmail.cli.merge.csv_source import MergeError, Row
from otpmail.cli.output import state_of
from otpmail.v1 import mail_pb2

_HEADER = "row,email,code,message"


def code_of(result: mail_pb2.SendMailsResponse.Result) -> str:
    """The name of the service's error code; empty where the service accepted the mail."""
    if not result.code:
        return ""
    return code_pb2.Code.Name(result.code) if result.code in code_pb2.Code.values() else str(result.code)


def why(result: mail_pb2.SendMailsResponse.Result) -> tuple[str, str]:
    """A code and a message for a mail that was not relayed: the service's, else the relay's, else the mail's state."""
    if result.code:
        return code_of(result), result.message
    (reply, *_) = (*result.mail.recipients, mail_pb2.RecipientResult())
    message = " ".join(filter(None, (reply.enhanced_code, reply.reply)))
    if reply.code and result.mail.state == mail_pb2.Mail.STATE_FAILED:
        return str(reply.code), message
    return state_of(result.mail), message or "the relay did not reply"


class ErrorsFile:
    """The CSV file of the mails that were not relayed. It exists only if there are any.

    It is opened before any mail is sent, so that a file that cannot be written stops the merge in time. The list of an
    earlier run is replaced as soon as this run has one, or has come to its end without one. No other file is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete = False  # whether the run has come to its end
        self._new = path.with_name(f"{path.name}.new")
        self._file: TextIO | None = None
        self._empty = True

    def __repr__(self) -> str:
        return f"<ErrorsFile {self.path}, {'empty' if self._empty else 'not empty'}>"

    def __enter__(self) -> None:
        try:
            # A run that was killed leaves FILE.new, possibly with only a part of its header.
            for path, least in ((self.path, len(_HEADER)), (self._new, 0)):
                if path.exists() and not _begins_a_list(path.read_bytes(), least):
                    raise MergeError(f"--errors: {path}: exists, and is not a list of errors; name another file")
            self._file = self._new.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise MergeError(f"--errors: {self.path}: cannot be written: {error.strerror}") from None
        csv.writer(self._file).writerow(_HEADER.split(","))

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        self._file.close()
        if not self._empty:
            self._new.replace(self.path)
            return
        self._new.unlink(missing_ok=True)
        if self.complete:
            self.path.unlink(missing_ok=True)

    def add(self, row: Row, code: str, message: str) -> None:
        """List a row."""
        assert self._file is not None
        self._empty = False
        csv.writer(self._file).writerow((row.number, row.email, code, message))

    def flush(self) -> None:
        """Hand what was listed to the operating system, in FILE.new: from now on it survives this process."""
        if self._file is not None and not self._empty:
            self._file.flush()


def _begins_a_list(content: bytes, least: int) -> bool:
    """Whether these bytes begin with the header of a list, of which at least `least` bytes are there."""
    header = _HEADER.encode()
    begun = content[: len(header)]
    return len(begun) >= least and header.startswith(begun)
