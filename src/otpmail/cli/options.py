"""The options that several commands share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, TypeVar

import typer

from otpmail.cli import endpoint
from otpmail.cli.output import AS_JSON, wrong_usage
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


def _set_json(*, wanted: bool) -> bool:
    AS_JSON.set(wanted)
    return wanted


Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=lambda value: _set_json(wanted=value), is_eager=True, help="Print the answer as JSON."
    ),
]
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


def complete_from(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the completion of an option: it offers the words that begin with what was typed."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def pairs(option: str, texts: Iterable[str], example: str) -> dict[str, str]:
    """Return the values of an option by their names. Raises typer.Exit with 2 for a name that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise wrong_usage(f"{option}: {text!r} has no equals sign; write it as in {example}")
        if not name:
            raise wrong_usage(f"{option}: {text!r} has no name; write it as in {example}")
        if name in found:  # one of them would be lost
            raise wrong_usage(f"{option}: {name!r} is given twice; it has one value")
        found[name] = value
    return found
