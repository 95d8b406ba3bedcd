"""The result of a merge: the counts, the exit code, and the lines or the JSON that the command prints at its end."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from otpmail.cli.output import EXIT_FAILED, EXIT_UNREACHABLE, err, out
from otpmail.values import frozen


@dataclass(slots=True)
class Counts:
    """How many of `total` mails have which result.

    `relayed_before` and `failed_before` are the part of `relayed` and `failed` whose result is that of an earlier run.
    """

    total: int
    relayed: int = 0
    relayed_before: int = 0
    failed: int = 0
    failed_before: int = 0

    @property
    def settled(self) -> int:
        """How many mails have a result."""
        return self.relayed + self.failed

    @property
    def known(self) -> int:
        """How many mails had their result before this run: the journal or the service knew it."""
        return self.relayed_before + self.failed_before

    @property
    def unanswered(self) -> int:
        """How many mails have no result."""
        return self.total - self.settled


@frozen()
class Stop:
    """Why a merge ended early. `by_service`: the service or its relay is the reason, not this machine or a person."""

    reason: str
    by_service: bool = False


@frozen(kw_only=True)
class Summary:
    """The end of a merge. `in_doubt`: how many mails were handed to the service and have no result.

    `seconds` is how long it took; `errors` and `journal` are the files that hold results, None where there are none.
    """

    counts: Counts
    stop: Stop | None = None
    in_doubt: int = 0
    seconds: float = 0.0
    errors: Path | None = None
    journal: Path | None = None

    @property
    def exit_code(self) -> int:
        """0: all mails were relayed. 3: the service or its relay was down. 1: anything else."""
        if self.stop is not None and self.stop.by_service:
            return EXIT_UNREACHABLE
        return EXIT_FAILED if self.stop is not None or self.counts.failed else 0

    def show(self, *, as_json: bool) -> None:
        """Print it: for people, or as one line of JSON."""
        if as_json:
            print(self.as_json())  # noqa: T201  programs read it
            return
        if self.stop is not None:
            err.print(escape(self.stop.reason), style="red")
        result, *advice = self.lines()
        out.print(escape(result), style="green" if not self.exit_code else "")
        for line in advice:
            out.print(escape(line))

    def as_json(self) -> str:
        """One line of JSON; paths and the reason are empty where there are none."""
        counts = self.counts
        return json.dumps(
            {
                "mails": counts.total,
                "relayed": counts.relayed,
                "relayed_before": counts.relayed_before,
                "failed": counts.failed,
                "failed_before": counts.failed_before,
                "unanswered": counts.unanswered,
                "in_doubt": self.in_doubt,
                "errors": str(self.errors or ""),
                "journal": str(self.journal or ""),
                "stopped": self.stop.reason if self.stop else "",
            }
        )

    def lines(self) -> list[str]:
        """The counts in one line, then what to do next."""
        lines = [self._result()]
        if self.stop is not None:
            lines.append(self._how_to_go_on())
        if self.journal is not None:
            lines.append(
                f"{self.journal} lists the mails that were relayed; the same command does not send them again. "
                "To send them again, delete it and change the template a little. The service remembers each mail for a "
                "day, with a durable STORE_URL also after a restart."
            )
        return lines

    def _result(self) -> str:
        counts = self.counts
        now = counts.settled - counts.known
        listed = f" (listed in {self.errors})" if self.errors else ""
        known = f"; sent now: {now}, known already: {counts.known}" if counts.known else ""
        rate = f", {now / self.seconds:.0f} a second" if now and self.seconds else ""
        result = f"{counts.relayed} of {counts.total} relayed, {counts.failed} failed{listed}{known}"
        return f"{result}, in {self.seconds:.1f} s{rate}"

    def _how_to_go_on(self) -> str:
        counts, doubt = self.counts, self.in_doubt
        if doubt:
            return (
                f"{counts.unanswered} have no result: {doubt} of them may have been sent, the others were not. Run the "
                "same command to go on. Within a day none is sent twice, unless the service is restarted meanwhile."
            )
        if counts.settled == counts.known:
            return "Nothing was sent. Run the same command to try again."
        return f"{counts.unanswered} were not sent. Run the same command to go on."
