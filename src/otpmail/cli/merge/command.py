"""The command `otpmail merge`: its options, which it checks before any mail is sent, and its output."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from otpmail.cli.options import From, Json, ReplyTo, Server
from otpmail.cli.output import EXIT_FAILED, err, service_of, wrong_usage
from otpmail.counts import counted

_MOST_SHOWN = 10  # of rows that repeat an earlier one

File = Annotated[
    Path,
    typer.Argument(
        dir_okay=False,
        metavar="FILE",
        help="A CSV file in UTF-8. Its first row names the columns: email, and the variables of the template. Each "
        "further row is one mail. Rows that make the same mail are sent once, even if you run the command again.",
    ),
]
Template = Annotated[
    Path,
    typer.Option(
        file_okay=False,
        metavar="FOLDER",
        help="The template: a folder with subject.txt, and body.txt, body.html or both. $city is replaced by the "
        "value of the column city, $$ by a dollar sign. Values are escaped in the HTML.",
    ),
]
Errors = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        help="Lists the mails that were not relayed. Default: people.errors.csv beside people.csv.",
    ),
]
Journal = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        help="Keeps which mails were relayed; they are not sent again. Default: people.journal beside people.csv. To "
        "send them again, delete it and change the template a little. The service remembers each mail for a day, with "
        "a durable STORE_URL also after a restart.",
    ),
]


def merge(
    file: File,
    *,
    template: Template,
    errors: Errors = None,
    journal: Journal = None,
    sender: From = "",
    reply_to: ReplyTo = "",
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Send one mail to each person in a CSV file, from a template."""
    from otpmail.cli.merge.csv_source import MergeError, Recipients
    from otpmail.cli.merge.error_report import ErrorsFile
    from otpmail.cli.merge.journal import Journal
    from otpmail.cli.merge.run import Run

    errors = errors or file.with_name(f"{file.stem}.errors.csv")
    journal = journal or file.with_name(f"{file.stem}.journal")
    _check_paths(file, template, errors, journal)
    try:
        recipients = Recipients.load(file, template, sender=sender, reply_to=reply_to)
        service = service_of(server)
        show_repeated(recipients.file, recipients.repeated)
        summary = Run(recipients, service, ErrorsFile(errors), Journal(journal)).go()
    except MergeError as error:
        raise wrong_usage(*error.problems) from None
    except KeyboardInterrupt:
        err.print("interrupted before the first mail: nothing was sent", style="red")
        raise typer.Exit(EXIT_FAILED) from None
    summary.show(as_json=as_json)
    raise typer.Exit(summary.exit_code)


def show_repeated(file: Path, repeated: Iterable[tuple[int, int]]) -> None:
    """Print the rows that make the same mail as an earlier row: a few one by one, then how many more there are."""
    rows = list(repeated)
    for number, first in rows[:_MOST_SHOWN]:
        err.print(f"{escape(str(file))}: row {number}: makes the same mail as row {first}; it is sent once")
    if len(rows) > _MOST_SHOWN:
        err.print(f"... and {counted(len(rows) - _MOST_SHOWN, 'more row')} like these")


def _check_paths(file: Path, template: Path, errors: Path, journal: Path) -> None:
    """Refuse to write over what is read, or both results to one file."""
    for option, path in (("--errors", errors), ("--journal", journal)):
        if path.resolve() in (file.resolve(), template.resolve()):
            raise wrong_usage(f"{option}: {path} is the input; name another file")
    if errors.resolve() == journal.resolve():
        raise wrong_usage(f"--journal: {journal} is the file of --errors; name another file")
