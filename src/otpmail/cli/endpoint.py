"""Decides which service the commands call: --server, else OTPMAIL_SERVER, else HOST and PORT of the settings here.

It also says how a person calls that service, and this program, from a shell.
"""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otpmail.errors import SettingsError

if TYPE_CHECKING:
    from otpmail.settings import ClientSettings, Sources

_ANY = {"0.0.0.0": ("127.0.0.1",), "[::]": ("[::1]", "127.0.0.1")}  # noqa: S104  looked for, not bound
"""Where a service that listens on all addresses is called, the one to prefer first: gRPC binds both families."""

_ADDRESS = re.compile(r"unix:.+|(?:[^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]):(?P<port>[0-9]{1,5})")


class Service(NamedTuple):
    """The service that a command calls, and how the command shows itself there."""

    address: str
    client: "ClientSettings"


def find_service(server: str) -> Service:
    """Return the service at `server`, or if that is empty, at `own_address`; the settings are read once.

    Raises SettingsError.
    """
    from otpmail.settings import ClientSettings, load_section, read_sources

    sources = read_sources()
    return Service(server or own_address(sources), load_section(ClientSettings, sources))


def own_address(sources: "Sources | None" = None) -> str:
    """The address of the service that OTPMAIL_SERVER names, else the first of those that HOST and PORT describe.

    Without `sources` they are read now. Raises SettingsError where one of these settings is wrong.
    """
    from otpmail.settings import ServerSettings, is_present, load_section, named_server, read_sources

    sources = read_sources() if sources is None else sources
    named = named_server(sources)
    if named:
        return well_formed(named, "OTPMAIL_SERVER")
    # A caller needs only the address; whether strangers may call is checked by the service.
    settings = load_section(ServerSettings, sources, ALLOW_ANONYMOUS="true")
    # The service passes over an address of a name that this machine lacks.
    bound = (host for host in settings.hosts if host.path or is_present(host.host))
    return callable_address(next(bound, settings.hosts[0]).with_port(settings.port))


def well_formed(server: str, name: str) -> str:
    """Return `server` if it has the form of an address, else raise SettingsError, which opens with `name`.

    gRPC would take nearly any text for a host name, and later report that no service answers there.
    """
    from otpmail.settings import LONGEST_PATH, quoted

    match = _ADDRESS.fullmatch(server)
    if match is None or not 1 <= int(match["port"] or 1) <= 65535:
        rule = "must be host:port, such as 127.0.0.1:40700 or [::1]:40700, or unix:PATH"
        raise SettingsError(f"{name}: {quoted(server)} is wrong: {rule}")
    if len(os.fsencode(socket_path(server))) > LONGEST_PATH:
        raise SettingsError(f"{name}: {quoted(server)} is too long: a socket's path has at most {LONGEST_PATH} octets")
    return server


def leads_to(address: str, sources: "Sources") -> bool:
    """Whether commands without --server call the service on `address`."""
    try:
        return own_address(sources) == address
    except SettingsError:
        return False


def callable_address(address: str) -> str:
    """The address to call from this machine for a service that listens on `address`: loopback for "any address"."""
    from otpmail.settings import is_present

    host, colon, port = address.rpartition(":")
    if host not in _ANY:
        return address
    *preferred, last = _ANY[host]
    return f"{next(filter(is_present, preferred), last)}{colon}{port}"


def socket_path(address: str) -> str:
    """The path of a Unix socket's address; empty for another address."""
    return address.removeprefix("unix:") if address.startswith("unix:") else ""


def own_command() -> str:
    """The words that start this program from here: `otpmail` if PATH finds this one, else as it was started."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(_from_here(Path(sys.executable)))} -m otpmail"
    found = shutil.which(started.name)
    if found is not None and Path(found).resolve() == started.resolve():
        return started.name
    return shlex.quote(_from_here(started))


def _from_here(path: Path) -> str:
    here = Path.cwd()
    shown = str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)
    return shown if "/" in shown else f"./{shown}"
