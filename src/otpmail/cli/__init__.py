"""The command line: `serve`, `dev`, `check`, `health` run or look at a service; `code` and `mail` are its client.

Exit codes: 0, it worked; 1, it did not (a mail not relayed, a code not valid, a service not serving, a mail merge
interrupted); 2, a setting or an argument is wrong; 3, the service could not be reached or refused the call.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from otpmail.cli import client, service

app = typer.Typer(
    name="otpmail",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001  typer's way to hand it over
    if wanted:
        print(f"otpmail {version('otpmail')}")  # noqa: T201  for programs: no markup
        raise typer.Exit


@app.callback()
def otpmail(
    *,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Gets a mail, or a one-time code in a mail, to a person: gRPC in, SMTP out."""


app.command()(service.serve)
app.command()(service.dev)
app.command()(service.check)
app.command()(client.health)
app.add_typer(client.code, name="code")
app.add_typer(client.mail, name="mail")
