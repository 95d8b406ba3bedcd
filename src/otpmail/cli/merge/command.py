"""`otpmail mail send --from-file`: a mail merge over SendMails, with progress, a journal, and the failures in a file.

Each mail is waited for (WAIT_FOR_RELAY): so what the relay refuses is listed, and what has not left when it is
interrupted never does. Its request_id says what is in it, so it is mailed once however often the file is sent: the
service knows what is under way, the journal whatever was relayed.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
import typer
from google.rpc import code_pb2
from rich.markup import escape

from otpmail.cli.merge.csv_source import MergeError, Recipients, Row
from otpmail.cli.merge.error_report import ErrorsFile, code_of, state_of, why
from otpmail.cli.merge.journal import RELAYED, Journal
from otpmail.cli.merge.progress import display
from otpmail.cli.output import EXIT_FAILED, EXIT_UNREACHABLE, address_of, err, in_words, out, wrong_usage
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_BATCH = 100  # mails
_BATCH_OCTETS = 512 << 10  # below what any service takes in one message, whatever its MAIL_MAX_BYTES
# The service ends a connection after a while, and gives what runs on it five minutes more: a stream is to be over then.
_STREAM_SECONDS = 180.0
_MOST_TOLD = 10  # of rows that stand twice


@dataclass(slots=True)
class Counts:
    """How far it has come. `before`: how many of those that are relayed were so before this run."""

    total: int
    before: int = 0
    relayed: int = 0
    failed: int = 0

    @property
    def settled(self) -> int:
        """How many are through, one way or the other."""
        return self.relayed + self.failed

    @property
    def unanswered(self) -> int:
        """How many have no result: they were not sent, or their results are not known."""
        return self.total - self.settled


def merge(
    file: Path,
    template: Path,
    *,
    errors: Path | None,
    journal: Path | None,
    sender: str,
    reply_to: str,
    server: str,
    as_json: bool,
) -> NoReturn:
    """Check everything, send, and exit."""
    errors = errors or file.with_name(f"{file.stem}.errors.csv")
    journal = journal or file.with_name(f"{file.stem}.journal")
    try:
        for option, path in (("--errors", errors), ("--journal", journal)):
            if path.resolve() in (file.resolve(), template.resolve()):
                raise wrong_usage(f"{option}: {path} is what is to be sent")
        if errors.resolve() == journal.resolve():
            raise wrong_usage(f"--journal: {journal} is where failures are listed")
        recipients = Recipients.load(file, template, sender=sender, reply_to=reply_to)
        address = address_of(server)
        _tell_of_copies(recipients)
        run = Run(recipients, address, errors, journal)
        run.go()
    except MergeError as error:
        raise wrong_usage(*error.problems) from None
    except KeyboardInterrupt:
        err.print("interrupted before the first mail: nothing was sent", style="red")
        raise typer.Exit(EXIT_FAILED) from None
    run.report(as_json=as_json)
    raise typer.Exit(run.exit_code)


class Run:
    """One sending of a file. gRPC takes rows from it in a thread of its own; results are read here."""

    def __init__(self, recipients: Recipients, address: str, errors: Path, journal: Path) -> None:
        self.counts = Counts(recipients.total)
        self._recipients = recipients
        self._address = address
        self._errors = ErrorsFile(errors)
        self._journal = Journal(journal)
        self._rows: Iterator[Row] = iter(())
        self._more = True
        self._waiting: dict[str, Row] = {}
        self._stopped = ""  # why, where it did not come to its end
        self._service_to_blame = False
        self._seconds = 0.0

    def go(self) -> None:
        """Send until all is sent, or the service can't be had, or Ctrl-C, or there is no room to note who got it."""
        began = time.monotonic()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._journal)
                stack.enter_context(self._errors)
                self._pass_over_who_got_it()
                channel = stack.enter_context(grpc.insecure_channel(self._address))
                show = stack.enter_context(display(self.counts.total, self.counts.before))
                while self._more and not self._stopped:
                    self._send(channel, show)
                self._errors.complete = not self._stopped
        except grpc.RpcError as error:
            self._service_to_blame = True
            self._stopped = self._stopped or in_words(error, self._address, 0)
        except KeyboardInterrupt:
            self._stopped, self._service_to_blame = "interrupted", False
        except OSError as error:  # of the journal, or the list of failures
            self._stopped, self._service_to_blame = f"can't go on: {error.strerror or error}", False
        self._seconds = time.monotonic() - began

    @property
    def exit_code(self) -> int:
        """By the README's table."""
        if self._stopped and self._service_to_blame:
            return EXIT_UNREACHABLE
        return EXIT_FAILED if self._stopped or self.counts.failed else 0

    def report(self, *, as_json: bool) -> None:
        """Say what was sent, what was not, and how to go on."""
        counts, stopped = self.counts, self._stopped
        listed = str(self._errors.path) if counts.failed else ""
        journal = str(self._journal.path) if counts.relayed else ""
        if as_json:
            result = {
                "mails": counts.total,
                "relayed": counts.relayed,
                "relayed_before": counts.before,
                "failed": counts.failed,
                "unanswered": counts.unanswered,
                "errors": listed,
                "journal": journal,
                "stopped": stopped,
            }
            print(json.dumps(result))  # noqa: T201  for programs: no markup
            return
        if stopped:
            err.print(escape(stopped), style="red")
        rate = (counts.settled - counts.before) / self._seconds if self._seconds else 0.0
        said = f"{counts.relayed} of {counts.total} relayed"
        said += f", {counts.before} of them before this run" if counts.before else ""
        said += f", {counts.failed} failed"
        said += f" (listed in {escape(listed)})" if listed else ""
        out.print(f"{said}, in {self._seconds:.1f} s, {rate:.0f} a second", style="green" if not self.exit_code else "")
        if stopped:
            out.print(
                f"{counts.unanswered} have no result; send the file again to go on. The first of them may have been "
                "with the relay: within a day they are not mailed twice, unless the service is restarted meanwhile."
            )
        if journal:
            out.print(
                f"Who got it is in {escape(journal)}, and gets no second mail when the file is sent again. To start "
                "over, delete it; for a day, the service itself remembers too."
            )

    def _pass_over_who_got_it(self) -> None:
        relayed = self._journal.relayed
        before = sum(request_id in relayed for request_id in self._recipients.request_ids()) if relayed else 0
        self.counts.before = self.counts.relayed = before
        self._rows = self._recipients.rows(without=relayed)
        self._more = self.counts.unanswered > 0
        if before:
            err.print(f"{before} of {self.counts.total} got it before, as {escape(str(self._journal.path))} says")

    def _send(self, channel: grpc.Channel, show: Any) -> None:
        call: Any = mail_pb2_grpc.MailServiceStub(channel).SendMails(self._batches(time.monotonic() + _STREAM_SECONDS))
        try:
            for response in call:
                for result in response.results:
                    self._take(result)
                self._journal.flush()
                self._errors.flush()
                show(self.counts)
        finally:
            call.cancel()  # without effect where it has ended

    def _batches(self, until: float) -> Iterator[mail_pb2.SendMailsRequest]:
        while not self._stopped and time.monotonic() < until:
            batch = _batch(self._rows)
            if not batch:
                self._more = False
                return
            self._waiting.update((row.request.request_id, row) for row in batch)
            yield mail_pb2.SendMailsRequest(mails=[row.request for row in batch])

    def _take(self, result: mail_pb2.SendMailsResponse.Result) -> None:
        row = self._waiting.pop(result.request_id, None)
        if row is None:  # of no mail of ours
            return
        if result.code == code_pb2.UNAVAILABLE:  # and so would be all that follow
            self._stopped = f"UNAVAILABLE: {result.message}"
            self._service_to_blame = True
        elif result.mail.state == mail_pb2.Mail.RELAYED:
            self.counts.relayed += 1
            self._journal.add(result.request_id, RELAYED)
        else:
            self.counts.failed += 1
            self._journal.add(result.request_id, code_of(result) or state_of(result.mail))
            self._errors.add(row, *why(result))


def _batch(rows: Iterator[Row]) -> list[Row]:
    batch: list[Row] = []
    octets = 0
    for row in rows:
        batch.append(row)
        octets += row.request.ByteSize()
        if len(batch) >= _BATCH or octets >= _BATCH_OCTETS:
            break
    return batch


def _tell_of_copies(recipients: Recipients) -> None:
    file = escape(str(recipients.file))
    copies: Iterable[tuple[int, int]] = recipients.repeated[:_MOST_TOLD]
    for number, first in copies:
        err.print(f"{file}: row {number}: is the same mail as that of row {first}, and is sent once")
    if len(recipients.repeated) > _MOST_TOLD:
        err.print(f"... and {len(recipients.repeated) - _MOST_TOLD} more rows that are sent once")
