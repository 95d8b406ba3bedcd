"""The command itself: what it reads, in which order it looks, and what it prints."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from otpmail.cli.output import EXIT_FAILED, err, out, wrong_usage
from otpmail.cli.running import load_settings, run
from otpmail.errors import ConnectFailed, SettingsError, Unreachable

if TYPE_CHECKING:
    from otpmail.relays.connection import Connection
    from otpmail.relays.dial import SignedIn
    from otpmail.relays.rehearsal import Step
    from otpmail.settings import RelaySettings, Settings
    from otpmail.smtp.capabilities import Capabilities


def check(
    *,
    dial: Annotated[
        bool,
        typer.Option(
            help="Dial the relay and offer it a mail, which is not sent. With --no-dial: Check only the settings and "
            "the files they name."
        ),
    ] = True,
) -> None:
    """Check the settings, dial the relay, and print what it announces, how mails will travel, and what to change."""
    from otpmail.settings import read_sources
    from otpmail.settings.doubts import doubts

    sources = read_sources()
    settings = load_settings(sources)
    for doubt in doubts(settings, sources):
        err.print(escape(doubt.line), style="yellow")
    _check_files(settings)
    out.print("settings: good")
    if settings.store.is_durable:
        out.print("store: not opened; `otpmail serve` opens it at its start")
    if dial:
        run(check_relays(settings))


def _check_files(settings: "Settings") -> None:
    """Read the files that the settings name, as the service does at its start."""
    from otpmail.api.access import doubts_about_certificates, read_access
    from otpmail.compose.catalog import Templates
    from otpmail.relays.secure import tls_context

    reads: list[Callable[[], object]] = [
        partial(Templates.load, settings.otp, settings.product.product),
        partial(read_access, settings.server, settings.otp, [relay.endpoint for relay in settings.relays]),
    ]
    reads += [partial(tls_context, relay) for relay in settings.relays]
    problems: list[str] = []
    for read in reads:
        try:
            read()
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise wrong_usage(*dict.fromkeys(problems))  # relays share most settings, so a problem may come twice
    for words in (*settings.otp.beyond_ceilings, *settings.otp.without_effect):
        err.print(escape(words), style="yellow")
    for doubt in doubts_about_certificates(settings.server, time.time()):
        err.print(escape(doubt), style="yellow")


async def check_relays(settings: "Settings") -> None:
    """Dial each relay, rehearse a mail, and print what was found. Raises typer.Exit with 1 if one takes no mails."""
    from otpmail.address import parse_mailbox

    sender = parse_mailbox(settings.mail.email_from, "EMAIL_FROM").spec
    good = [await _check_relay(relay, sender, settings.mail.workers) for relay in settings.relays]
    if not all(good):
        raise typer.Exit(EXIT_FAILED)


async def _check_relay(relay: "RelaySettings", sender: str, workers: int) -> bool:
    """Connect, rehearse a mail, print what was found, and say whether mails will go."""
    from otpmail.relays.dial import dial
    from otpmail.relays.rehearsal import rehearse
    from otpmail.relays.secure import tls_context
    from otpmail.relays.token import Token

    where = f"{relay.endpoint} ({relay.security})"
    out.print(escape(f"relay {where}: dialling; each reply may take {relay.timeout:g} s"))
    try:
        signed_in = await dial(relay, tls_context(relay), Token.of(relay))
    except ConnectFailed as error:
        await _explain_failed_dial(error, relay, where)
        return False
    _print_connected(signed_in, relay, where)
    try:
        steps = await rehearse(signed_in, sender, relay)
        await _print_how_mails_travel(signed_in, relay, workers)
    except ConnectFailed as error:
        err.print(f"relay {escape(where)}: {escape(str(error))}", style="red")
        return False
    finally:
        signed_in.client.close()
    return _print_rehearsal(steps, relay, signed_in.helo)


async def _explain_failed_dial(error: ConnectFailed, relay: "RelaySettings", where: str) -> None:
    from otpmail.cli.check.advice import on_failed_dial

    advice = on_failed_dial(error, relay)
    err.print(escape(f"relay {where}: {error}{f'; {advice}' if advice else ''}"), style="red")
    if isinstance(error, Unreachable):
        await _look_for_other_ports(relay)


async def _look_for_other_ports(relay: "RelaySettings") -> None:
    from otpmail.cli.check.ports import endpoints_to_try, find_endpoints

    own, *others = endpoints_to_try(relay)
    usual = ", ".join(str(endpoint.port) for endpoint in others)
    out.print(f"  trying port {own.port} with EMAIL_SECURITY={own.security}, and the ports {usual}")
    endpoints = await find_endpoints(relay, (own, *others))
    for port, security, fault in endpoints:
        if fault:
            out.print(escape(f"  port {port} answers, but not as needed: {fault}"), style="yellow")
            continue
        scheme = {"tls": "smtps", "starttls": "smtp"}[security]
        host = f"[{relay.host}]" if ":" in relay.host else relay.host
        change = (
            f"write {scheme}://...@{host}:{port} in EMAIL_RELAYS"
            if relay.named_by_url
            else f"set EMAIL_PORT={port} and EMAIL_SECURITY={security}"
        )
        out.print(escape(f"  port {port} answers: {change}"), style="green")
    if not endpoints:
        advice = "check the host and the port, and whether a firewall lets this machine out"
        err.print(f"  none of them answers as needed: {advice}", style="red")


def _print_connected(signed_in: "SignedIn", relay: "RelaySettings", where: str) -> None:
    at = "" if signed_in.address == relay.host else f" at {signed_in.address}"
    how = f"signed in as {relay.user}" if relay.user else "signed in" if relay.signs_in else "no sign-in"
    out.print(escape(f"relay {where}: connected{at}, {how}"))
    out.print(escape(f"  {'name in EHLO':<20} {signed_in.helo}"))
    _print_capabilities(signed_in.capabilities)


def _print_capabilities(capabilities: "Capabilities") -> None:
    from otpmail.smtp.capabilities import SHOWN

    announced = capabilities.extensions
    for keyword in SHOWN:
        found = announced.get(keyword, "") or "yes" if keyword in announced else "no"
        out.print(escape(f"  {keyword:<20} {found}"))


async def _print_how_mails_travel(signed_in: "SignedIn", relay: "RelaySettings", workers: int) -> None:
    """Take the connection over as the service does, and print the mode of its mails; nothing if it is closed."""
    from otpmail.relays.connection import Connection

    if not signed_in.client.is_connected:
        return
    connection = await Connection.over(signed_in, relay, lifetime=relay.max_age)
    _print_mode(connection, workers)
    await connection.close()


def _print_mode(connection: "Connection", workers: int) -> None:
    from otpmail.counts import counted, mails

    connections = counted(workers, "connection")
    out.print(f"mode: {connection.mode}, {connections}, {mails(connection.window)} in flight on each")
    out.print(f"round trips for a mail to one recipient: {connection.mode.round_trips}")
    if connection.runs_refused_chunks:
        out.print("  it runs a chunk that it refuses as commands: no BDAT")


def _print_rehearsal(steps: "list[Step]", relay: "RelaySettings", helo: str) -> bool:
    """Print the relay's replies to the mail that was offered, and say whether mails will go."""
    from otpmail.cli.check.advice import Weight, on_refused_step

    for step in steps:
        reply = step.reply
        said = " ".join(filter(None, (str(reply.code), reply.enhanced_code, reply.reply)))
        out.print(escape(f"{step.line}: {said}"), style="" if step.is_good else "yellow")
    if steps[-1].is_good:
        out.print("  the relay takes mails from EMAIL_FROM; none was sent", style="green")
        return True
    weight, words = on_refused_step(steps[-1], relay, helo)
    is_fault = weight is Weight.FAULT
    (err if is_fault else out).print(escape(f"  {words}"), style="red" if is_fault else "yellow")
    return not is_fault
