"""Sends a merge over SendMails, and takes its results.

Each mail waits for the relay (WAIT_FOR_RELAY). Only then is a refused address listed, and only then can an interrupted
merge take back what has not left. A request_id is a digest of its mail. The service therefore sends a repeated mail
once while it remembers the id, and the journal keeps what was relayed for longer than that.
"""

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
from google.rpc import code_pb2
from rich.markup import escape

from otpmail.cli.channel import open_channel, unreachable
from otpmail.cli.endpoint import Service
from otpmail.cli.merge.csv_source import Recipients, Row
from otpmail.cli.merge.error_report import ErrorsFile, code_of, why
from otpmail.cli.merge.journal import RELAYED, Journal
from otpmail.cli.merge.progress import display
from otpmail.cli.merge.summary import Counts, Stop, Summary
from otpmail.cli.output import describe_error, err, state_of
from otpmail.v1 import mail_pb2, mail_pb2_grpc

BATCH_MAILS = 100
BATCH_BYTES = 512 << 10  # below the limit of any service for one message, whatever its MAIL_MAX_BYTES
# A connection that is past its age ends with its last stream. Short streams let the merge follow to new replicas, and
# pass through proxies that cut long ones.
_STREAM_SECONDS = 180.0
_LOOK_SECONDS = 5.0

Show = Callable[[Counts], None]


class Run:
    """One sending of the recipients. gRPC takes rows in a thread of its own; the caller's thread reads results.

    `now` is the time of day, in seconds, on a clock that the service shares. A mail that was created before the run
    began is one that an earlier run sent.
    """

    def __init__(
        self,
        recipients: Recipients,
        service: Service,
        errors: ErrorsFile,
        journal: Journal,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._counts = Counts(recipients.total)
        self._recipients = recipients
        self._service, self._address = service, service.address
        self._errors = errors
        self._journal = journal
        self._began = now()
        self._rows: Iterator[Row] = iter(())
        self._more = True
        self._waiting: dict[str, Row] = {}  # rows that gRPC has taken, by request id, until their result is there
        self._stop: Stop | None = None

    def __repr__(self) -> str:
        counts = self._counts
        return f"<Run {counts.settled} of {counts.total} settled, {len(self._waiting)} waiting, {self._stop}>"

    def go(self) -> Summary:
        """Send until every mail has a result, the service or its relay is down, or Ctrl-C. Raises MergeError."""
        began = time.monotonic()
        try:
            with self._journal, self._errors:
                self._skip_relayed()
                self._send_all()
                self._errors.complete = self._stop is None
        except grpc.RpcError as error:
            self._stop = self._stop or Stop(describe_error(error, self._address, 0), by_service=True)
        except KeyboardInterrupt:
            self._stop = Stop("interrupted")
        except OSError as error:  # the journal or the list of errors could not be written
            self._stop = Stop(f"cannot go on: {error.strerror or error}")
        counts = self._counts
        return Summary(
            counts=counts,
            stop=self._stop,
            in_doubt=len(self._waiting),
            seconds=time.monotonic() - began,
            errors=self._errors.path if counts.failed else None,
            journal=self._journal.path if counts.relayed else None,
        )

    def _skip_relayed(self) -> None:
        """Leave out the mails that the journal lists."""
        relayed = self._journal.relayed
        before = sum(request_id in relayed for request_id in self._recipients.request_ids()) if relayed else 0
        self._counts.relayed = self._counts.relayed_before = before
        self._rows = self._recipients.rows(without=relayed)
        self._more = self._counts.unanswered > 0
        if before:
            journal = escape(str(self._journal.path))
            err.print(
                f"{before} of {self._counts.total} were relayed before, as {journal} says; they are not sent again"
            )

    def _send_all(self) -> None:
        if not self._more:
            return
        with open_channel(self._service) as channel:
            if not connects(channel):
                self._stop = Stop(why_unconnected(channel, self._address), by_service=True)
                return
            with display(self._counts.total, self._counts.relayed) as show:
                while self._more and self._stop is None:
                    self._send(channel, show)

    def _send(self, channel: grpc.Channel, show: Show) -> None:
        """Send as much as one stream may, and take all of its results."""
        call: Any = mail_pb2_grpc.MailServiceStub(channel).SendMails(self._batches(time.monotonic() + _STREAM_SECONDS))
        try:
            for response in call:
                for result in response.results:
                    self._take(result)
                self._journal.flush()
                self._errors.flush()
                show(self._counts)
        finally:
            call.cancel()  # without effect on a call that has ended

    def _batches(self, until: float) -> Iterator[mail_pb2.SendMailsRequest]:
        while self._stop is None and time.monotonic() < until:
            batch = take_batch(self._rows)
            if not batch:
                self._more = False
                return
            self._waiting.update((row.request.request_id, row) for row in batch)
            yield mail_pb2.SendMailsRequest(mails=[row.request for row in batch])

    def _take(self, result: mail_pb2.SendMailsResponse.Result) -> None:
        row = self._waiting.pop(result.request_id, None)
        if row is None:  # a result for no mail of this stream
            return
        if result.code == code_pb2.UNAVAILABLE:  # the service would answer so to all that follow
            self._stop = Stop(f"UNAVAILABLE: {result.message}", by_service=True)
            return
        counts = self._counts
        before = self._is_of_an_earlier_run(result)
        if result.mail.state == mail_pb2.Mail.STATE_RELAYED:
            counts.relayed += 1
            counts.relayed_before += before
            self._journal.add(result.request_id, RELAYED)
        else:
            counts.failed += 1
            counts.failed_before += before
            self._journal.add(result.request_id, code_of(result) or state_of(result.mail))
            self._errors.add(row, *why(result))

    def _is_of_an_earlier_run(self, result: mail_pb2.SendMailsResponse.Result) -> bool:
        return not result.code and result.mail.create_time.ToNanoseconds() < self._began * 1e9


def connects(channel: grpc.Channel) -> bool:
    """Whether the channel's first attempt to connect succeeds; it returns once that is known."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    add = states.put
    channel.subscribe(add, try_to_connect=True)
    try:
        while (state := states.get()) is not grpc.ChannelConnectivity.READY:
            if state in {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}:
                return False
    finally:
        channel.unsubscribe(add)
    return True


def why_unconnected(channel: grpc.Channel, address: str) -> str:
    """Return why the channel's attempt to connect has failed: gRPC tells a call, which fails at once then."""
    try:
        mail_pb2_grpc.MailServiceStub(channel).GetMail(mail_pb2.GetMailRequest(), timeout=_LOOK_SECONDS)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return describe_error(error, address, _LOOK_SECONDS)
    return unreachable(address)  # a service has come meanwhile


def take_batch(rows: Iterator[Row]) -> list[Row]:
    """Take the rows of the next request: at least one, up to 100 or up to 512 KiB; none when no rows are left."""
    batch: list[Row] = []
    octets = 0
    for row in rows:
        batch.append(row)
        octets += row.request.ByteSize()
        if len(batch) >= BATCH_MAILS or octets >= BATCH_BYTES:
            break
    return batch
