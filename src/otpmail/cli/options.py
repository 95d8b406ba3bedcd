"""The options that several commands share."""

from collections.abc import Mapping
from typing import Annotated, TypeVar

import typer

from otpmail.cli import endpoint
from otpmail.cli.output import wrong_usage
from otpmail.errors import SettingsError

ValueT = TypeVar("ValueT")


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
ReplyTo = Annotated[
    str, typer.Option(metavar="EMAIL", help="Where a person's reply goes. Default: to the address in --from.")
]


OfCaller = Annotated[
    str,
    typer.Option(
        "--caller", metavar="NAME", help="For an operator (`caller add --operator`): mails of this caller, not its own."
    ),
]
AllCallers = Annotated[bool, typer.Option("--all-callers", help="For an operator: mails of all callers.")]

ALL = "-"
"""All callers, in a request that names one."""


def whose(caller: str, *, all_callers: bool) -> str:
    """Return the caller for a request to name, empty for its own mails. Raises typer.Exit with 2 for both options."""
    if caller and all_callers:
        raise wrong_usage("--caller: names one caller, and --all-callers means all; give one of them")
    return ALL if all_callers else caller


def value_of(option: str, text: str, values: Mapping[str, ValueT]) -> ValueT:
    """Return what an option's word names, in any case of letters. Raises typer.Exit with 2 for another word."""
    if text.lower() not in values:
        raise wrong_usage(f"{option}: {text!r} is not one of {', '.join(values)}")
    return values[text.lower()]
