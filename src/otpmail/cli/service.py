"""The commands that run a service, and the one that looks at its settings and its relay."""

import asyncio
import os
import shlex
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from otpmail.cli import endpoint
from otpmail.errors import ConnectFailed, SettingsError

if TYPE_CHECKING:
    from otpmail.app import App
    from otpmail.dev.relay import CaughtMail
    from otpmail.settings import RelaySettings, Settings, Sources

EXIT_FAILED = 1
EXIT_USAGE = 2

_DEFAULT_ADDRESS = "127.0.0.1:40700"
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def serve() -> None:
    """Run the service, with settings from the environment, .env or SECRETS_DIR."""
    _run(_serve(_settings()))


def dev(
    *,
    address_file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write here where it listens, once it does; for scripts.")
    ] = None,
) -> None:
    """Run the service with a relay of its own that catches every mail and prints it. No credentials needed."""
    if address_file is not None and not address_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory {address_file.parent}", param_hint="--address-file")
    _run(_dev(address_file))


def check(*, dial: Annotated[bool, typer.Option(help="Also dial the relay and say what it announces.")] = True) -> None:
    """Check the settings, dial the relay, and say what it announces and how mails will travel."""
    from otpmail.compose.templates import Templates
    from otpmail.relays.relay import tls_context

    settings = _settings()
    problems: list[str] = []
    contexts = (partial(tls_context, relay) for relay in settings.relays)
    reads: list[Callable[[], object]] = [partial(Templates.load, settings.otp), *contexts]
    for read in reads:
        try:
            read()
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise _wrong_settings(SettingsError(*dict.fromkeys(problems)))  # relays have most settings in common
    _out.print("settings: good")
    if dial:
        _run(_check(settings))


def _settings(sources: "Sources | None" = None, /, **fixed: str | None) -> "Settings":
    from otpmail.settings import Settings

    try:
        return Settings.load(sources, **fixed)
    except SettingsError as error:
        raise _wrong_settings(error) from None


def _wrong_settings(error: SettingsError) -> typer.Exit:
    for problem in error.problems:
        _err.print(escape(problem), style="red")
    return typer.Exit(EXIT_USAGE)


def _run(work: Coroutine[Any, Any, None]) -> None:
    import uvloop

    try:
        uvloop.run(work)
    except SettingsError as error:
        raise _wrong_settings(error) from None


async def _serve(settings: "Settings") -> None:
    from otpmail.app import App, stop_on_signals
    from otpmail.telemetry.logs import set_up

    set_up(settings.server.log_format, settings.server.log_level)
    app, stop = App(settings), asyncio.Event()
    stop_on_signals(stop, _at_once(app))
    await app.run(stop)


def _at_once(app: "App") -> Callable[[int], None]:
    def end(exit_code: int) -> None:
        app.give_up()
        os._exit(exit_code)

    return end


async def _dev(address_file: Path | None) -> None:
    from otpmail.app import App, stop_on_signals
    from otpmail.dev.relay import CatchAllRelay
    from otpmail.settings import read_sources
    from otpmail.telemetry.logs import set_up

    relay = CatchAllRelay(_show)
    port = await relay.start()
    sources = read_sources()
    settings = _settings(
        sources,
        EMAIL_RELAYS="",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(port),
        EMAIL_SECURITY="plain",
        EMAIL="",
        APP_PASSWORD="",
        EMAIL_AUTH=None,
        EMAIL_CA_FILE=None,
        EMAIL_TOKEN_FILE=None,
        EMAIL_FROM="otpmail dev <codes@otpmail.example>",
        OTP_RETURN_CODE="true",
        OTP_RESEND_SECONDS="0",
        OTP_FAILURES_PER_HOUR="10000",
        GRPC_REFLECTION="true",
    )
    set_up(settings.server.log_format, settings.server.log_level)
    app, stop = App(settings), asyncio.Event()
    stop_on_signals(stop, _at_once(app))

    def started(address: str) -> None:
        _started(endpoint.callable_address(address), address_file, sources)

    await app.run(stop, started)
    await relay.close()


def _started(address: str, address_file: Path | None, sources: "Sources") -> None:
    otpmail = endpoint.own_command()
    # In another terminal the environment may say nothing: so only for the default, and unless .env names another.
    found = endpoint.leads_to(address, sources) and address == _DEFAULT_ADDRESS
    server = "" if found else f" --server {shlex.quote(address)}"
    _out.print(f"otpmail dev serves on {address}; every mail is caught and shown here. In another terminal:")
    _out.print(escape(f"  {otpmail} code send ada@example.org{server}"))
    _out.print(escape(f"  {otpmail} code validate ada@example.org CODE{server}"))
    _out.print(escape(f"  {otpmail} mail send --to ada@example.org --subject Hello --text 'Good morning'{server}"))
    if address_file is not None:
        new = address_file.with_name(f"{address_file.name}.new")
        new.write_text(f"{address}\n")
        new.replace(address_file)  # whole or not at all, for whoever waits for it


def _show(mail: "CaughtMail") -> None:
    message = mail.message
    body = message.get_body(("plain", "html"))
    text = body.get_content().rstrip() if body is not None else ""
    _out.rule(f"mail to {escape(', '.join(mail.recipients))}", align="left")
    _out.print(f"from {escape(mail.sender)}   subject {escape(str(message['Subject']))}", style="bold")
    _out.print(escape(text))


async def _check(settings: "Settings") -> None:
    named_by_url = bool(settings.mail.email_relays.get_secret_value())
    good = [await _check_relay(relay, settings.mail.workers, named_by_url) for relay in settings.relays]
    if not all(good):
        raise typer.Exit(EXIT_FAILED)


async def _check_relay(relay: "RelaySettings", workers: int, named_by_url: bool) -> bool:  # noqa: FBT001
    from otpmail.relays.connection import Connection
    from otpmail.relays.dial import answers_without_tls
    from otpmail.relays.relay import tls_context
    from otpmail.smtp.capabilities import SHOWN
    from otpmail.telemetry.logs import mails

    where = f"{relay.host}:{relay.port} ({relay.security})"
    try:
        connection = await Connection.open(relay, tls_context(relay), lifetime=relay.max_age)
    except ConnectFailed as error:
        advice = f"; {_other_security(named_by_url)}" if answers_without_tls(error) else ""
        _err.print(f"relay {escape(where)}: {escape(f'{error}{advice}')}", style="red")
        return False
    announced = connection.announcement.extensions
    _out.print(f"relay {where}: connected, {f'signed in as {relay.user}' if relay.user else 'no sign-in'}")
    for keyword in SHOWN:
        _out.print(f"  {keyword:<20} {announced.get(keyword, '') or 'yes' if keyword in announced else 'no'}")
    connections = f"{workers} {'connection' if workers == 1 else 'connections'}"
    _out.print(f"mode: {connection.mode}, {connections}, {mails(connection.window)} in flight on each")
    _out.print(f"round trips for a mail to one recipient: {connection.mode.round_trips}")
    if connection.runs_refused_chunks:
        _out.print("  it runs a chunk that it refuses as commands: no BDAT")
    await connection.close()
    return True


def _other_security(named_by_url: bool) -> str:  # noqa: FBT001
    starttls, plain, port = (
        ("smtp:// in EMAIL_RELAYS", "smtp+plain://", "its port to the one")
        if named_by_url
        else ("EMAIL_SECURITY=starttls", "plain", "EMAIL_PORT to the one")
    )
    return f"set {starttls}, or {plain}, which encrypts nothing; or set {port} where it does, mostly 465"
