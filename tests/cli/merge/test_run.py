"""A merge's run against a service that answers as each test says: its counts, its end, and the mails in doubt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import code_pb2

from otpmail.cli.endpoint import Service
from otpmail.cli.merge.csv_source import Recipients, Row
from otpmail.cli.merge.error_report import ErrorsFile
from otpmail.cli.merge.journal import RELAYED, Journal
from otpmail.cli.merge.run import Run, take_batch
from otpmail.settings import ClientSettings
from otpmail.v1 import mail_pb2, mail_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otpmail.cli.merge.summary import Summary

Result = mail_pb2.SendMailsResponse.Result
BEGAN = 1_000_000.0


class _Service(mail_pb2_grpc.MailServiceServicer):
    """Answers each mail of SendMails, the one method that a merge calls. ConnectionError ends the stream."""

    def __init__(self, answer: Callable[[mail_pb2.SendMailRequest], Result]) -> None:
        self._answer = answer

    def SendMails(  # noqa: N802  the contract's name
        self,
        request_iterator: Iterator[mail_pb2.SendMailsRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[mail_pb2.SendMailsResponse]:
        for request in request_iterator:
            try:
                results = [self._answer(mail) for mail in request.mails]
            except ConnectionError:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is lost")
            yield mail_pb2.SendMailsResponse(results=results)


@contextmanager
def _served(answer: Callable[[mail_pb2.SendMailRequest], Result]) -> Iterator[str]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        mail_pb2_grpc.add_MailServiceServicer_to_server(_Service(answer), server)  # type: ignore[abstract]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def _result(
    mail: mail_pb2.SendMailRequest,
    state: mail_pb2.Mail.State.ValueType = mail_pb2.Mail.STATE_RELAYED,
    created: float = BEGAN + 0.5,
) -> Result:
    result = Result(request_id=mail.request_id, mail=mail_pb2.Mail(state=state))
    result.mail.create_time.FromNanoseconds(int(created * 1e9))
    return result


class Merge:
    """A file of people and a template, each run of which begins at the time BEGAN."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        (folder / "spring").mkdir()
        (folder / "spring" / "subject.txt").write_text("Hello")
        (folder / "spring" / "body.txt").write_text("Dear $name")
        rows = [f"p{number}@example.org,P{number}\n" for number in range(count)]
        (folder / "people.csv").write_text("".join(["email,name\n", *rows]))
        self.recipients = Recipients.load(folder / "people.csv", folder / "spring")
        self.errors = folder / "errors.csv"
        self.journal = folder / "journal"

    def run(self, address: str, journal: Journal | None = None) -> Summary:
        """Run it once."""
        journal = journal or Journal(self.journal)
        service = Service(address, ClientSettings.from_layers({}))
        return Run(self.recipients, service, ErrorsFile(self.errors), journal, now=lambda: BEGAN).go()


@pytest.fixture
def merge(tmp_path: Path) -> Merge:
    """A merge of 250 mails, which make three batches."""
    return Merge(tmp_path, 250)


def _row(number: int, size: int = 10) -> Row:
    return Row(number, "ada@example.org", mail_pb2.SendMailRequest(request_id=str(number), text="x" * size))


@pytest.mark.parametrize(("size", "batches"), [(10, [100, 100, 50]), (100_000, [6] * 41 + [4]), (1 << 20, [1] * 250)])
def test_batches_are_bounded(size: int, batches: list[int]) -> None:
    """A batch is bounded by number and by size, and has at least one mail; every row is in one batch, in order."""
    rows = iter([_row(number, size) for number in range(250)])
    made = []
    while batch := take_batch(rows):
        made.append(batch)
    assert [len(batch) for batch in made] == batches
    assert [row.number for batch in made for row in batch] == list(range(250))


def test_sent_now_and_known_already(merge: Merge) -> None:
    """A result whose mail was created before this run is one of an earlier run; so is one that the journal has."""
    in_journal, in_service, refused = (set(list(merge.recipients.request_ids())[i : i + 10]) for i in (0, 10, 20))
    with (journal := Journal(merge.journal)):
        for request_id in in_journal:
            journal.add(request_id, RELAYED)

    def answer(mail: mail_pb2.SendMailRequest) -> Result:
        assert mail.request_id not in in_journal
        if mail.request_id in refused:
            return _result(mail, mail_pb2.Mail.STATE_FAILED, created=BEGAN - 0.001)
        return _result(mail, created=BEGAN - 0.001 if mail.request_id in in_service else BEGAN)

    with _served(answer) as address:
        summary = merge.run(address)
    counts = summary.counts
    assert (counts.relayed, counts.relayed_before, counts.failed, counts.failed_before) == (240, 20, 10, 10)
    assert (counts.known, counts.unanswered, summary.in_doubt, summary.stop) == (30, 0, 0, None)
    assert summary.exit_code == 1


def test_a_mail_that_the_service_refuses_is_of_this_run(merge: Merge) -> None:
    """A refusal has no mail and no time of creation; the service has judged the mail now."""
    with _served(lambda mail: Result(request_id=mail.request_id, code=code_pb2.PERMISSION_DENIED)) as address:
        summary = merge.run(address)
    assert (summary.counts.failed, summary.counts.failed_before) == (250, 0)


def test_nothing_was_sent_where_no_service_listens(merge: Merge) -> None:
    """Without a connection no mail is in doubt, and no file is left."""
    with _served(_result) as address:
        pass
    summary = merge.run(address)
    assert summary.stop is not None
    assert summary.stop.reason.startswith(f"no service answers on {address}; ")
    assert (summary.exit_code, summary.in_doubt, summary.counts.unanswered) == (3, 0, 250)
    assert not merge.journal.exists()
    assert not merge.errors.exists()


def test_a_service_whose_relay_is_down_has_sent_nothing(merge: Merge) -> None:
    """UNAVAILABLE for one mail stops the run. Every mail that was handed over has its answer, so none is in doubt."""
    with _served(lambda mail: Result(request_id=mail.request_id, code=code_pb2.UNAVAILABLE, message="down")) as address:
        summary = merge.run(address)
    assert summary.stop is not None
    assert (summary.stop.reason, summary.exit_code) == ("UNAVAILABLE: down", 3)
    assert (summary.in_doubt, summary.counts.settled) == (0, 0)


def test_a_mail_without_its_result_is_in_doubt(merge: Merge) -> None:
    """The merge counts mails as doubtful that were handed over and have no result when the connection is lost."""
    answered: list[str] = []

    def answer(mail: mail_pb2.SendMailRequest) -> Result:
        if len(answered) == 100:
            raise ConnectionError
        answered.append(mail.request_id)
        return _result(mail)

    with _served(answer) as address:
        summary = merge.run(address)
    assert (summary.exit_code, summary.counts.relayed) == (3, 100)
    assert 100 <= summary.in_doubt <= 150
    with (journal := Journal(merge.journal)):
        assert journal.relayed == set(answered)


def test_a_result_of_an_unknown_mail_is_ignored(merge: Merge) -> None:
    """The merge counts the result of an unknown mail for no row."""
    with _served(lambda mail: _result(mail_pb2.SendMailRequest(request_id=f"x{mail.request_id}"))) as address:
        summary = merge.run(address)
    assert (summary.counts.settled, summary.in_doubt) == (0, 250)


class _FullJournal(Journal):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_journal_that_cannot_be_written_stops_the_run(merge: Merge) -> None:
    """The run stops at the first results: mails that no journal lists would be sent again."""
    with _served(_result) as address:
        summary = merge.run(address, _FullJournal(merge.journal))
    assert summary.stop is not None
    assert (summary.stop.reason, summary.exit_code) == ("cannot go on: No space left on device", 1)
    assert summary.counts.relayed == 100
