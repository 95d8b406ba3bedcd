"""The command line. `serve`, `dev` and `check` run a service or look at its settings; the other commands call one.

Exit codes: 0, the command did what was asked. 1, it did not: a mail was not relayed, a code was not valid, a service is
not serving, a merge was interrupted. 2, a setting or an argument is wrong. 3, no service answered, or it refused. 4, it
did, but its answer could not be written (`standard_streams`).
"""

from importlib.metadata import version
from typing import Annotated

import typer

from otpmail.cli import address, caller, code, dev, health, keys, listing, lookup, mail, retry, serve, templates
from otpmail.cli.check import command as check
from otpmail.cli.help import Command, Group
from otpmail.cli.merge import command as merge

app = typer.Typer(
    name="otpmail",
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001  typer calls it with the option's value
    if wanted:
        print(f"otpmail {version('otpmail')}")  # noqa: T201  programs read it, so no markup
        raise typer.Exit


@app.callback()
def otpmail(
    *,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Send a mail, or a one-time code in a mail, to a person: gRPC in, SMTP out."""


app.command(cls=Command)(serve.serve)
app.command(cls=Command)(dev.dev)
app.command(cls=Command)(check.check)
app.command(cls=Command)(health.health)
app.add_typer(address.address, name="address")
app.add_typer(caller.caller, name="caller")
app.add_typer(code.code, name="code")
app.add_typer(keys.keys, name="keys")
lookup.add_to(mail.mail)
mail.mail.command("list", cls=Command)(listing.list_mails)
mail.mail.command("retry", cls=Command)(retry.retry_mails)
app.add_typer(mail.mail, name="mail")
app.command(cls=Command)(merge.merge)
app.add_typer(templates.templates, name="templates")
