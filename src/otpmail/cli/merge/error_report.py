"""The mails of a merge that were not relayed: why, and the file that lists them."""

import csv
from pathlib import Path
from typing import TextIO

from google.rpc import code_pb2

from otpmail.cli.merge.csv_source import MergeError, Row
from otpmail.v1 import mail_pb2

_HEADER = "row,email,code,message"


def code_of(result: mail_pb2.SendMailsResponse.Result) -> str:
    """That of the service; nothing where it took the mail."""
    if not result.code:
        return ""
    return code_pb2.Code.Name(result.code) if result.code in code_pb2.Code.values() else str(result.code)


def state_of(mail: mail_pb2.Mail) -> str:
    """Its state's name; the number of one that only a newer service knows."""
    known = mail.state in mail_pb2.Mail.State.values()
    return mail_pb2.Mail.State.Name(mail.state) if known else str(mail.state)


def why(result: mail_pb2.SendMailsResponse.Result) -> tuple[str, str]:
    """A code and words for a mail that was not relayed: the service's own, or else the relay's."""
    if result.code:
        return code_of(result), result.message
    (said, *_) = (*result.mail.recipients, mail_pb2.RecipientResult())
    words = " ".join(filter(None, (said.enhanced_code, said.reply)))
    if said.code and result.mail.state == mail_pb2.Mail.FAILED:
        return str(said.code), words
    return state_of(result.mail), words or "the relay gave no answer"


class ErrorsFile:
    """Where failures are listed; there only if there are any. It is opened before a mail goes: it may not open.

    An earlier list is replaced once this run has one, or has come to its end without; nothing else is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete = False  # whether the run has come to its end
        self._new = path.with_name(f"{path.name}.new")
        self._file: TextIO | None = None
        self._empty = True

    def __enter__(self) -> None:
        try:
            # A run that was killed leaves FILE.new, perhaps before its header had got there whole.
            for path, least in ((self.path, len(_HEADER)), (self._new, 0)):
                if path.exists() and not _begins_a_list(path.read_bytes(), least):
                    raise MergeError(f"--errors: {path}: is there, and is no list of failures; name another file")
            self._file = self._new.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise MergeError(f"--errors: {self.path}: can't be written: {error.strerror}") from None
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
        """Have what was listed on disk, in FILE.new, whatever happens next."""
        if self._file is not None and not self._empty:
            self._file.flush()


def _begins_a_list(content: bytes, least: int) -> bool:
    """Whether these octets are a list's, of whose header `least` are there."""
    header = _HEADER.encode()
    begun = content[: len(header)]
    return len(begun) >= least and header.startswith(begun)
