"""SendMails between gRPC and the stream of mails: how outcomes become responses, and how a call ends."""

import asyncio
import logging
from collections import deque
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from otpmail.api import encode, stream
from otpmail.api.batches import BatchReader
from otpmail.api.reads import Reads
from otpmail.api.status import Code
from otpmail.api.stream import serve_stream
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.mail.labels import checked_labels
from otpmail.mail.service import MailService
from otpmail.mail.stream import MailStream, Outcome
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.v1 import mail_pb2
from rig import MailRig, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")


def _mail(name: str, recipients: int = 1) -> Outcome:
    results = tuple(RecipientResult(f"p{number}@example.org", 250, "2.0.0", "OK") for number in range(recipients))
    return name, Mail(name, "anonymous", f"<{name}@x>", 1.5, name, MailState.RELAYED, results, 1, 2.25)


def test_outcomes_become_results() -> None:
    """A mail as other methods answer it; an error as its google.rpc.Code and the words of the status."""
    mail = _mail("a")
    (response,) = stream._responses([mail, ("b", InvalidArgument("to[0]", "is empty")), ("c", Unavailable("away"))])
    assert isinstance(mail[1], Mail)
    assert list(response.results) == [
        mail_pb2.SendMailsResponse.Result(request_id="a", mail=encode.mail_message(mail[1])),
        mail_pb2.SendMailsResponse.Result(request_id="b", code=code_pb2.INVALID_ARGUMENT, message="to[0]: is empty"),
        mail_pb2.SendMailsResponse.Result(request_id="c", code=code_pb2.UNAVAILABLE, message="away"),
    ]


def test_the_unforeseen_is_one_mails_result(caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL with an id that the log has too, and not a word of the exception."""
    with caplog.at_level(logging.ERROR, "otpmail"):
        (response,) = stream._responses([("a", RuntimeError("the code is 271828"))])
    (result,) = response.results
    assert result.code == code_pb2.INTERNAL
    assert "271828" not in result.message
    (record,) = caplog.records
    assert record.fields["error_id"] in result.message  # type: ignore[attr-defined]


def test_a_response_is_of_bounded_size() -> None:
    """By results and by recipients, each of which has words of the relay; the order stays, and nothing is left out."""
    outcomes = [_mail(str(number)) for number in range(250)]
    responses = list(stream._responses(outcomes))
    assert [len(response.results) for response in responses] == [100, 100, 50]
    assert [result.request_id for response in responses for result in response.results] == [
        name for name, _ in outcomes
    ]
    many = [_mail(str(number), recipients=600) for number in range(5)]
    assert [len(response.results) for response in stream._responses(many)] == [2, 2, 1]


def test_the_largest_response_can_be_received() -> None:
    """With the longest replies, labels and ids that there are, a response stays below the 4 MiB that clients take."""
    replies = tuple(RecipientResult("p" * 242 + "@example.org", 550, "5.999.999", "😀" * 500) for _ in range(100))
    labels = tuple((f"{number:02}", "x" * 126) for number in range(32))
    assert checked_labels(dict(labels)) == labels
    name = "😀" * 128
    for count in (9, 100):
        mail = Mail(name, "", "m" * 252, 1.5, name, MailState.FAILED, replies[:count], labels=labels)
        assert all(response.ByteSize() < 4 << 20 for response in stream._responses([(name, mail)] * 200))


def test_a_mail_that_can_not_be_encoded_is_an_error_in_its_own_result(caplog: pytest.LogCaptureFixture) -> None:
    """The result has the code INTERNAL, and the other results are complete."""
    no_text = RecipientResult("p0@example.org", 250, "2.0.0", "\udcff")
    broken = "b", Mail("b", "anonymous", "<b@x>", 1.5, "b", MailState.RELAYED, (no_text,), 1, 2.25)
    with caplog.at_level(logging.ERROR, "otpmail"):
        (response,) = stream._responses([_mail("a"), broken, _mail("c")])
    assert [(result.request_id, result.code, result.HasField("mail")) for result in response.results] == [
        ("a", 0, True),
        ("b", code_pb2.INTERNAL, False),
        ("c", 0, True),
    ]


class Context:
    """A call's context whose reads and writes are the test's."""

    def __init__(self, *reads: Any, write_fails: bool = False) -> None:
        self.reads = deque(reads)
        self.write_fails = write_fails
        self.written: list[Any] = []
        self.wrote = asyncio.Event()
        self.aborted: list[Any] = []

    async def read(self) -> Any:
        """The next of the reads, or the end."""
        read = self.reads.popleft() if self.reads else grpc.aio.EOF
        if isinstance(read, Exception):
            raise read
        return read

    async def write(self, response: Any) -> None:
        """Keep it, or fail as where the caller is gone."""
        if self.write_fails:
            raise grpc.aio.InternalError
        self.written.append(response)
        self.wrote.set()

    async def abort(self, *arguments: Any) -> None:
        """Note the status, and raise as grpc.aio's does."""
        self.aborted.append(arguments)
        raise grpc.aio.AbortError


def _reads(rig: MailRig) -> Reads:
    return Reads(rig.memory_budget, most_octets=1 << 20, ended=grpc.aio.BaseError)


_BATCH = mail_pb2.SendMailsRequest(mails=[mail_pb2.SendMailRequest()]).SerializeToString()


def _reader(mails: MailService) -> BatchReader:
    return BatchReader(mails.limits, mails.cooperator, mails.admission.turns.wait)


async def test_a_batch_that_cannot_be_read_ends_the_call() -> None:
    """Once what came before it is answered."""
    rig = MailRig()
    context = Context(_BATCH, b"\xff" * 20, _BATCH)
    with pytest.raises(grpc.aio.AbortError):
        await serve_stream(context, MailStream(rig.mails, call_of(), most=10), _reader(rig.mails), _reads(rig))
    assert [len(response.results) for response in context.written] == [1]
    assert context.aborted[0][:2] == (
        Code.INVALID_ARGUMENT,
        "mails: the request is no SendMailsRequest",
    )
    assert "0 streams" in repr(rig.admission)


async def test_a_read_that_outlives_the_server() -> None:
    """A read that fails as the server ends is no error, and the call ends as cancelled."""
    context = Context(_BATCH, grpc.aio.BaseError())
    rig = MailRig()
    serving = asyncio.create_task(
        serve_stream(context, MailStream(rig.mails, call_of(), most=10), _reader(rig.mails), _reads(rig))
    )
    await context.wrote.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_caller_that_is_gone() -> None:
    """The error of a failed write is raised unchanged: gRPC handles it."""
    rig = MailRig()
    with pytest.raises(grpc.aio.InternalError):
        await serve_stream(
            Context(_BATCH, write_fails=True),
            MailStream(rig.mails, call_of(), most=10),
            _reader(rig.mails),
            _reads(rig),
        )
    assert "0 streams" in repr(rig.admission)
