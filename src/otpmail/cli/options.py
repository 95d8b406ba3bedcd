"""The options that several commands share."""

from typing import Annotated

import typer

from otpmail.cli import endpoint
from otpmail.cli.output import wrong_usage
from otpmail.errors import SettingsError


def _check_server(server: str) -> str:
    try:
        return server and endpoint.well_formed(server, "--server")
    except SettingsError as error:
        raise wrong_usage(str(error)) from None


Server = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        callback=_check_server,
        help="The service to call: host:port or unix:PATH. Default: OTPMAIL_SERVER, else HOST and PORT.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
From = Annotated[str, typer.Option("--from", metavar="EMAIL", help="The author. Default: the service's EMAIL_FROM.")]
ReplyTo = Annotated[str, typer.Option(metavar="EMAIL", help="Where a person's reply goes. Default: to the sender.")]
