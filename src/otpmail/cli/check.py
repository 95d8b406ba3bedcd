"""`otpmail check`: checks the settings, dials each relay, and prints what the relay announces. It sends no mail."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from otpmail.cli.output import EXIT_FAILED, err, out, wrong_usage
from otpmail.cli.running import load_settings, run
from otpmail.errors import ConnectFailed, SettingsError

if TYPE_CHECKING:
    from otpmail.relays.connection import Connection
    from otpmail.settings import RelaySettings, Settings


def check(
    *, dial: Annotated[bool, typer.Option(help="Also dial the relay and print what it announces.")] = True
) -> None:
    """Check the settings, dial the relay, and print what it announces and how mails will travel."""
    settings = load_settings()
    _check_files(settings)
    out.print("settings: good")
    if dial:
        run(_check_relays(settings))


def _check_files(settings: "Settings") -> None:
    """Read the files that the settings name, as the service does at its start."""
    from otpmail.compose.templates import Templates
    from otpmail.relays.secure import tls_context

    reads: list[Callable[[], object]] = [partial(Templates.load, settings.otp)]
    reads += [partial(tls_context, relay) for relay in settings.relays]
    problems: list[str] = []
    for read in reads:
        try:
            read()
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise wrong_usage(*dict.fromkeys(problems))  # relays share most settings, so a problem may come twice


async def _check_relays(settings: "Settings") -> None:
    good = [await _check_relay(relay, settings.mail.workers) for relay in settings.relays]
    if not all(good):
        raise typer.Exit(EXIT_FAILED)


async def _check_relay(relay: "RelaySettings", workers: int) -> bool:
    """Connect, print what was found, and say whether it went well."""
    from otpmail.relays.connection import Connection
    from otpmail.relays.secure import tls_context

    where = f"{relay.endpoint} ({relay.security})"
    out.print(escape(f"relay {where}: dialling; each reply may take {relay.timeout:g} s"))
    try:
        connection = await Connection.open(relay, tls_context(relay), lifetime=relay.max_age)
    except ConnectFailed as error:
        err.print(f"relay {escape(where)}: {escape(str(error))}", style="red")
        return False
    out.print(escape(f"relay {where}: connected, {f'signed in as {relay.user}' if relay.user else 'no sign-in'}"))
    _print_capabilities(connection, workers)
    await connection.close()
    return True


def _print_capabilities(connection: "Connection", workers: int) -> None:
    from otpmail.smtp.capabilities import SHOWN
    from otpmail.telemetry.counts import mails

    announced = connection.capabilities.extensions
    for keyword in SHOWN:
        found = announced.get(keyword, "") or "yes" if keyword in announced else "no"
        out.print(escape(f"  {keyword:<20} {found}"))
    connections = f"{workers} {'connection' if workers == 1 else 'connections'}"
    out.print(f"mode: {connection.mode}, {connections}, {mails(connection.window)} in flight on each")
    out.print(f"round trips for a mail to one recipient: {connection.mode.round_trips}")
    if connection.runs_refused_chunks:
        out.print("  it runs a chunk that it refuses as commands: no BDAT")
