"""Decides which service the commands call: --server, else OTPMAIL_SERVER, else HOST and PORT of the settings here.

It also says how a person calls that service, and this program, from a shell.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from otpmail.errors import SettingsError

if TYPE_CHECKING:
    from otpmail.settings import Sources

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  looked for, not bound
_ADDRESS = re.compile(r"unix:.+|(?:[^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_ELSEWHERE = "--server, OTPMAIL_SERVER, or HOST and PORT name another"


def own_address(sources: "Sources | None" = None) -> str:
    """The address of the service that OTPMAIL_SERVER names, else of the one that HOST and PORT describe.

    Without `sources` they are read now. Raises SettingsError where one of these settings is wrong.
    """
    from otpmail.settings import ServerSettings, load_section, named_server, read_sources

    sources = read_sources() if sources is None else sources
    named = named_server(sources)
    if named:
        return well_formed(named, "OTPMAIL_SERVER")
    # A caller needs only the address; whether strangers may call is checked by the service.
    return callable_address(load_section(ServerSettings, sources, ALLOW_ANONYMOUS="true").address)


def well_formed(server: str, name: str) -> str:
    """Return `server` if it has the form of an address, else raise SettingsError, which opens with `name`.

    gRPC would take nearly any text for a host name, and later report that no service answers there.
    """
    match = _ADDRESS.fullmatch(server)
    if match is None or not 1 <= int(match["port"] or 1) <= 65535:
        raise SettingsError(
            f"{name}: {server!r} is wrong: must be host:port, such as 127.0.0.1:40700 or [::1]:40700, or unix:PATH"
        )
    return server


def leads_to(address: str, sources: "Sources") -> bool:
    """Whether commands without --server call the service on `address`."""
    try:
        return own_address(sources) == address
    except SettingsError:
        return False


def callable_address(address: str) -> str:
    """The address to call from this machine for a service that listens on `address`: loopback for "any address"."""
    host, colon, port = address.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}{colon}{port}"


def unreachable(server: str) -> str:
    """The message for a service that does not answer."""
    return f"no service answers on {server}; {_ELSEWHERE}"


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
