"""`otpmail dev`: runs the service with a relay of its own, which prints every mail and delivers none."""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from otpmail.cli import endpoint
from otpmail.cli.output import out
from otpmail.cli.running import load_settings, run, run_service
from otpmail.cli.signals import Signals
from otpmail.errors import SettingsError
from otpmail.telemetry.formats import escape as escape_controls

if TYPE_CHECKING:
    from otpmail.dev.catching import ReadMail
    from otpmail.settings import ServerSettings, Sources
    from otpmail.telemetry.writer import BackgroundWriter

_STDOUT = 1
_FLUSH_SECONDS = 1.0
_LAST_PORT = 65535
_DEFAULT_ADDRESS = "127.0.0.1:40700"

_FIXED: Mapping[str, str | None] = MappingProxyType(
    {
        "EMAIL_RELAYS": "",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": "",  # where the relay listens
        "EMAIL_SECURITY": "plain",
        "EMAIL": "",
        "APP_PASSWORD": "",
        "APP_PASSWORD_FILE": None,
        "EMAIL_AUTH": None,
        "EMAIL_CA_FILE": None,
        "EMAIL_CERT_FILE": None,
        "EMAIL_KEY_FILE": None,
        "EMAIL_TLS_NAME": None,
        "EMAIL_TOKEN_FILE": None,
        "EMAIL_FROM": "otpmail dev <codes@otpmail.example>",
        "OTP_RETURN_CODE": "true",
        "OTP_CODE_HEADER": "true",
        "OTP_RESEND_SECONDS": "0",
        "OTP_FAILURES_PER_HOUR": "10000",
        "OTP_FAILURES_PER_DAY": "10000",
        "OTP_SENDS_PER_HOUR": "10000",
        "OTP_SENDS_PER_DAY": "10000",
        "OTP_SENDS_PER_BLOCK_HOUR": "10000",
        "GRPC_REFLECTION": "true",
        "PROCESSES": "1",  # more need a store that they share
    }
)


def dev(
    *,
    address_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Write the service's address to this file once it listens, and the URL of the inbox; for scripts.",
        ),
    ] = None,
    examples: Annotated[bool, typer.Option(help="Print commands to try in another terminal.")] = True,
) -> None:
    """Run the service with a relay of its own that catches every mail and prints it. No credentials needed."""
    if address_file is not None and not address_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory {address_file.parent}", param_hint="--address-file")
    run(_dev(Signals(hangup_stops=True), address_file, examples=examples))


async def _dev(signals: Signals, address_file: Path | None, *, examples: bool) -> None:
    from otpmail.dev.catching import Catcher
    from otpmail.dev.failing import is_spared
    from otpmail.dev.inbox import Inbox
    from otpmail.dev.pages import DevPages
    from otpmail.dev.relay import CatchAllRelay
    from otpmail.settings import read_sources
    from otpmail.settings.doubts import doubts
    from otpmail.telemetry.logs import log
    from otpmail.telemetry.writer import BackgroundWriter
    from otpmail.web.binding import DevDoor

    screen = Screen(BackgroundWriter(_STDOUT, _not_shown))
    inbox = Inbox()

    def take(read: "ReadMail") -> None:
        """Keep a mail, and show it."""
        inbox.add(read.mail)
        screen.show_mail(read)

    catcher = Catcher(take)
    relay = CatchAllRelay(catcher.catch)
    port = await relay.start()
    try:
        sources = read_sources()
        http_port = _http_port(sources)
        fixed = {**_FIXED, "EMAIL_PORT": str(port), **_without_store(), **http_port}
        settings = load_settings(sources, **fixed)
        if ignored := [name for name in fixed if any(name in layer for layer in sources.layers)]:
            screen.show(f"otpmail dev uses its own relay and values; it ignores your {', '.join(ignored)}")
        started = partial(
            _started, screen, settings.server, sources=sources if examples else None, address_file=address_file
        )
        if settings.server.log_format == "text":
            log.addFilter(_is_news)
        door = DevDoor(DevPages(inbox), any_port=bool(http_port))
        doubted = doubts(settings, sources, fixed)
        await run_service(settings, signals, started, fixed, doubts=doubted, dev=door, spared=is_spared)
    finally:
        log.removeFilter(_is_news)
        await relay.close()
        catcher.close()
        screen.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the log says more than the first line on the screen, which has an address and the URL."""
    event = getattr(record, "event", "")
    return event != "metrics" and (event != "listening" or len(getattr(record, "fields", {})["addresses"]) > 1)


def _without_store() -> dict[str, str | None]:
    """Return the defaults of all settings of the store.

    A store may hold real mails, which must not be caught. So nothing that is wrong with one matters either.
    """
    from pydantic import SecretStr

    from otpmail.settings import StoreSettings

    def as_text(default: object) -> str | None:
        """Return a default as the text of a setting."""
        secret = default.get_secret_value() if isinstance(default, SecretStr) else default
        return None if secret is None else str(secret)

    return {name: as_text(default) for name, default in StoreSettings.defaults().items()}


def _http_port(sources: "Sources") -> dict[str, str | None]:
    """Return HTTP_PORT where it is not set: the one behind PORT, in place of which any other will do."""
    port = _setting(sources, "PORT") or _DEFAULT_ADDRESS.rpartition(":")[2]
    if _setting(sources, "HTTP_PORT") or not port.isdecimal():
        return {}
    return {"HTTP_PORT": str(int(port) + 1 if 0 < int(port) < _LAST_PORT else 0)}


def _setting(sources: "Sources", name: str) -> str:
    return next((layer[name] for layer in sources.layers if name in layer), "")


def _started(
    screen: "Screen",
    settings: "ServerSettings",
    listening: str,
    http_port: int | None,
    *,
    sources: "Sources | None",
    address_file: Path | None,
) -> None:
    """Write the address file, then print where the service listens, with examples if there are `sources`.

    In this order a reader of the line finds the file.
    """
    address = endpoint.callable_address(listening)
    server = settings.model_copy(update={"http_port": http_port})  # the port that the system has chosen in place of 0
    url = _url(server)
    if address_file is not None:
        _write_address(address_file, f"{address}\n{url}\n")
    inbox = ", and in the inbox at that URL" if _has_inbox(server) else ""
    screen.show(f"otpmail dev serves on {address}, and over HTTP on {url}; every mail is caught and shown here{inbox}.")
    if sources is not None:
        screen.show("\n".join(_examples(address, sources, server)))


def _write_address(file: Path, lines: str) -> None:
    """Write the file at once, so that a reader finds all the lines or no file; raise SettingsError if it can't."""
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(lines)
        new.replace(file)
    except OSError as error:
        raise SettingsError(f"--address-file: {file} can't be written: {error.strerror}") from None


def _examples(address: str, sources: "Sources", settings: "ServerSettings") -> Iterator[str]:
    """Yield the lines that say what to try, and for a service that asks who calls, how to say it."""
    otpmail = endpoint.own_command()
    # The other terminal may have another environment, so only the default address can do without --server.
    found = address == _DEFAULT_ADDRESS and endpoint.leads_to(address, sources)
    server = "" if found else f" --server {shlex.quote(address)}"
    callers = ", with OTPMAIL_TOKEN set to the token of a caller in CALLERS_FILE" if settings.asks_callers else ""
    yield f"In another terminal{callers}:"
    yield f"  {otpmail} code send ada@example.org{server}"
    yield f"  {otpmail} code validate ada@example.org CODE{server}"
    yield f"  {otpmail} mail send --to ada@example.org --subject Hello --text 'Good morning'{server}"
    yield f"  {_curl(settings)}"


def _has_inbox(settings: "ServerSettings") -> bool:
    """Whether the inbox answers on HTTP_HOST, which it does on loopback alone."""
    from otpmail.settings.hosts import is_loopback
    from otpmail.settings.listen import WILDCARDS

    return settings.http_host in WILDCARDS or is_loopback(settings.http_host)


def _url(settings: "ServerSettings") -> str:
    """Return the URL of HTTP_PORT, as a program on this machine uses it."""
    from otpmail.settings.listen import WILDCARDS

    host = "localhost" if settings.http_host in {"127.0.0.1", *WILDCARDS} else settings.http_host
    shown = f"[{host}]" if ":" in host else host
    return f"http{'s' * (settings.tls_cert_file is not None)}://{shown}:{settings.http_port}"


def _curl(settings: "ServerSettings") -> str:
    """Return a call by curl, for a service whose certificate curl trusts, if it has one."""
    url = f"{_url(settings).removeprefix('http://')}/otpmail.v1.OtpService/SendCode"
    token = " -H 'authorization: Bearer '$OTPMAIL_TOKEN" if settings.asks_callers else ""
    return f"curl -H 'content-type: application/json'{token} -d '{{\"email\":\"ada@example.org\"}}' {url}"


class Screen:
    """Shows lines and mails on standard output, and drops them if nobody reads there: no mail waits for that."""

    def __init__(self, writer: "BackgroundWriter") -> None:
        self._writer = writer
        self._is_terminal, self._width = out.is_terminal, out.width  # while the terminal is there

    def __repr__(self) -> str:
        return f"<Screen {self._writer!r}>"

    def show(self, text: str) -> None:
        """Show a text of one or more lines."""
        self._render(lambda console: console.print(escape(text)))

    def show_mail(self, read: "ReadMail") -> None:
        """Show a mail's envelope, subject and text, and who refused or deferred it. Control characters are escaped."""
        caught = read.mail.caught
        lines = [_plain(line) for line in read.text.rstrip().splitlines()]
        if read.more:
            lines.append(f"({read.more} more characters are not shown here)")

        def render(console: Console) -> None:
            """Print the envelope, the subject and the text."""
            people = ", ".join(caught.recipients) or "nobody"
            console.rule(f"mail to {_plain(people)}", align="left")
            for address, reply in caught.refused:
                word, style = ("deferred", "bold") if reply.startswith("4") else ("refused", "bold red")
                console.print(f"{word} by {_plain(address)}: {_plain(reply)}", style=style)
            console.print(f"from {_plain(caught.sender)}   subject {_plain(read.mail.subject)}", style="bold")
            console.print("\n".join(lines), end="\n\n")

        self._render(render)

    def _render(self, render: Callable[[Console], None]) -> None:
        text = StringIO()
        render(Console(file=text, force_terminal=self._is_terminal, width=self._width, highlight=False, soft_wrap=True))
        self._writer.write(text.getvalue().encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Give the last lines a moment to be written."""
        self._writer.flush(_FLUSH_SECONDS)


def _not_shown(count: int) -> bytes:
    return f"{count} texts or mails were not shown, since nobody read standard output\n".encode()


def _plain(text: str) -> str:
    return escape(escape_controls(text))
