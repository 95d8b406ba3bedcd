"""`otpmail caller`: adds callers to CALLERS_FILE and gives them tokens, lists them, and checks the file."""

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape

from otpmail.cli.help import Command, Group
from otpmail.cli.output import EXIT_FAILED, err, out, wrong_usage
from otpmail.counts import counted
from otpmail.errors import SettingsError
from otpmail.standard_streams import loss_of_output

if TYPE_CHECKING:
    from otpmail.callers import Caller
    from otpmail.settings.callers import CallersFile

caller = typer.Typer(cls=Group, help="Name the callers of the service, and give them tokens.", no_args_is_help=True)

ResultT = TypeVar("ResultT")

_TOKEN_OCTETS = 32
_PREFIX = "otpmail_"  # so that programs which look for secrets in sources know a token

_SHOWN_ONCE = (
    "this token is shown once; the caller sends it as `authorization: Bearer TOKEN`, and the commands read it from "
    "OTPMAIL_TOKEN"
)
_SHUT_OUT = "no token and no certificate, so nobody can call as it"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The caller's name, such as shop.")]
Methods = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="The methods or services it may call, with commas between: SendCode,ValidateCode or "
        "otpmail.v1.OtpService. Default: all.",
    ),
]
Senders = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="EMAILS",
        help="The addresses it may send from beside EMAIL_FROM. Default: EMAIL_FROM_ALLOWED.",
    ),
]
ReturnPaths = Annotated[
    str | None, typer.Option("--return-paths", metavar="EMAILS", help="Where its bounces may go. Default: as --from.")
]
Priorities = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Of urgent, normal and bulk. Default: normal,bulk.")
]
Subject = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Know it by the subject of its certificate, such as CN=shop,O=Example."),
]
Sans = Annotated[
    str | None,
    typer.Option(
        "--san",
        metavar="NAMES",
        help="Know it by names in its certificate: shop.example.org, spiffe://example/shop.",
    ),
]
Operator = Annotated[
    bool, typer.Option("--operator", help="Let it look up, cancel and retry the mails of all callers.")
]
File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", dir_okay=False, help="The file. Default: CALLERS_FILE.")
]


@caller.command("add", cls=Command)
def add_caller(
    name: Name,
    *,
    methods: Methods = None,
    senders: Senders = None,
    return_paths: ReturnPaths = None,
    priorities: Priorities = None,
    subject: Subject = None,
    sans: Sans = None,
    operator: Operator = False,
    file: File = None,
) -> None:
    """Add a caller, and print its token once. One that is known by its certificate gets no token."""
    from otpmail.cli.callers_file import append_table

    token = "" if subject is not None or sans is not None else _new_token()
    values: dict[str, list[str] | bool] = {
        "tokens": [_digest(token)] if token else [],
        "subjects": [] if subject is None else [subject],
        "sans": _split("--san", sans),
        "methods": _split("--methods", methods),
        "from": _split("--from", senders),
        "return_paths": _split("--return-paths", return_paths),
        "priorities": _split("--priorities", priorities),
        "operator": operator,
    }
    path, _ = _change(file, lambda path: append_table(path, name, values, _methods(), partial(_show, token)))
    err.print(escape(f"added {name} to {path}{_about_setting(file, path)}"))
    if token:
        err.print(_SHOWN_ONCE)
    else:
        _warn_without_authorities(name)


@caller.command("rotate", cls=Command)
def rotate_token(name: Name, *, file: File = None) -> None:
    """Give a caller another token beside those it has, and print it once."""
    from otpmail.cli.callers_file import add_token

    token = _new_token()
    path, count = _change(file, lambda path: add_token(path, name, _digest(token), _methods(), partial(_show, token)))
    others = f", the new one first; remove the others from {path} once none is in use" if count > 1 else ""
    err.print(escape(f"{name} has {counted(count, 'token')} now{others}"))
    err.print(_SHOWN_ONCE)


@caller.command("list", cls=Command)
def list_callers(*, file: File = None) -> None:
    """Print the callers and what each may do."""
    _, found = _read(file)
    for line in _lines_of(found):  # rich would take a millisecond for each
        print(line)  # noqa: T201


@caller.command("check", cls=Command)
def check_callers(*, file: File = None) -> None:
    """Check the file as the service does, and print what is wrong with it, and the test addresses with their ends.

    The relays that profiles name are checked where the settings name relays.
    """
    from otpmail.cli.callers_file import profile_rules, relays_at_hand
    from otpmail.cli.profiles import doubts_about_mode, ends_of_test_addresses, relays_of_profiles

    relays = relays_at_hand()
    path, found = _read(file, relays)
    if relays is None and (named := relays_of_profiles(found)):
        unchecked = f"not checked: {', '.join(named)}, since no relays are set here (EMAIL_RELAYS, EMAIL_HOST)"
        err.print(escape(unchecked), style="yellow")
    for entry in found.entries:
        if entry.is_shut_out:
            err.print(escape(f"{entry.caller.name}: {_SHUT_OUT}"), style="yellow")
    if by_certificate := [entry.caller.name for entry in found.entries if entry.certificates]:
        _warn_without_authorities(*by_certificate)
    for line, is_near in ends_of_test_addresses(found, profile_rules().now()):
        (err if is_near else out).print(escape(line), style="yellow" if is_near else None)
    for line in doubts_about_mode(path, found):
        err.print(escape(line), style="yellow")
    out.print(f"good: {found.summary}", style="green")


def _read(given: Path | None, relays: Collection[str] | None = None) -> "tuple[Path, CallersFile]":
    from otpmail.cli.callers_file import profile_rules
    from otpmail.settings.callers import read_callers

    try:
        path = _file(given)
        return path, read_callers(path, _methods(), profile_rules(relays))
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


def _file(given: Path | None) -> Path:
    """Return the file to read or change. Raises SettingsError where none is named."""
    from otpmail.settings import ServerSettings, load_section

    if given is not None:
        return given
    path = load_section(ServerSettings, HOST="localhost").callers_file
    if path is None:
        raise SettingsError("CALLERS_FILE: is not set; set it to the path of the file, or give --file")
    return path


def _change(given: Path | None, change: Callable[[Path], ResultT]) -> tuple[Path, ResultT]:
    """Change the file; returns its path and the result. Raises typer.Exit with 2 after printing why it can't."""
    try:
        path = _file(given)
        return path, change(path)
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


def _warn_without_authorities(*names: str) -> None:
    """Warn about callers with certificates where the settings at hand name no authority: the service refuses them."""
    from otpmail.settings import ServerSettings, load_section

    try:
        settings = load_section(ServerSettings, HOST="localhost")
    except SettingsError:  # these settings are those of no service, so they say nothing about its authorities
        return
    if settings.tls_client_ca_file is None:
        words = f"{', '.join(names)}: calls with certificates need TLS_CLIENT_CA_FILE, which is not set here"
        err.print(escape(words), style="yellow")


def _about_setting(given: Path | None, path: Path) -> str:
    return f"; start the service with CALLERS_FILE={path}" if given is not None else ""


def _methods() -> Collection[str]:
    from otpmail.api.methods import METHODS

    return METHODS


def _split(option: str, text: str | None) -> list[str]:
    """Return the parts of an option's text, none of an option that is not given.

    Raises typer.Exit with 2 for a text without any, such as that of an empty variable: without a key all is allowed.
    """
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise wrong_usage(f"{option}: {text!r} names nothing")
    return parts


def _new_token() -> str:
    return f"{_PREFIX}{secrets.token_urlsafe(_TOKEN_OCTETS)}"


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _show(token: str) -> None:
    """Print a token, if there is one. Raises typer.Exit where nobody can have read it: a file must not hold it then."""
    if not token:
        return
    print(token, flush=True)  # noqa: T201  programs read it, so no markup
    if loss := loss_of_output():
        err.print(escape(f"nothing was changed: standard output does not take the token, as {loss}"), style="red")
        raise typer.Exit(EXIT_FAILED)


def _lines_of(found: "CallersFile") -> Iterator[str]:
    """Yield the callers of a file, and what each may do."""
    for entry in found.entries:
        known_by = [counted(entry.tokens, "token")] if entry.tokens else []
        words = _SHUT_OUT if entry.is_shut_out else ", ".join([*known_by, *entry.certificates])
        yield f"{entry.caller.name}: {words}"
        yield from _permissions_of(entry.caller)
    if found.callers.anonymous is not None:
        yield "anonymous: all calls without a token or a certificate"
        yield from _permissions_of(found.callers.anonymous)


def _permissions_of(caller: "Caller") -> Iterator[str]:
    from otpmail.cli.profiles import profiles

    may = caller.may
    lines = {
        "methods": "all" if may.methods is None else _listed(path[1:] for path in may.methods),
        "from": "EMAIL_FROM, EMAIL_FROM_ALLOWED" if may.senders is None else _listed(("EMAIL_FROM", *may.senders)),
        "return paths": "as from" if may.return_paths == may.senders else _listed(may.return_paths or ()),
        "priorities": _listed(priority.name.lower() for priority in may.priorities),
    }
    if may.shares is not None:
        lines["shares"] = f"{may.shares.queue:g} of the queue, {may.shares.memory:g} of the memory"
    if may.operate:
        lines["operator"] = "of the mails of all callers"
    if may.codes_per_hour is not None:
        lines["codes"] = f"at most {may.codes_per_hour} in an hour"
    if may.guesses_per_hour is not None:
        lines["wrong codes"] = f"at most {may.guesses_per_hour} of strangers in an hour"
    if may.rates is not None:
        rates = ((may.rates.mails_per_hour, "an hour"), (may.rates.mails_per_day, "a day"))
        lines["mails"] = ", ".join([f"at most {most} in {span}" for most, span in rates if most is not None])
    yield from [f"  {key}: {words}" for key, words in lines.items()]
    yield from [f"  {line}" for line in profiles(may.profiles or {})]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"
