"""Which service the client's commands call: --server, else OTPMAIL_SERVER's, else the one of HOST and PORT here.

Also how that service is named to a person who is to call it.
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

    Without `sources` they are read now. Raises SettingsError.
    """
    from otpmail.settings import ServerSettings, load_section, named_server, read_sources

    sources = read_sources() if sources is None else sources
    named = named_server(sources)
    if named:
        return well_formed(named, "OTPMAIL_SERVER")
    # The client needs the address alone, so the rule against strangers is left to the service.
    return callable_address(load_section(ServerSettings, sources, ALLOW_ANONYMOUS="true").address)


def well_formed(server: str, name: str) -> str:
    """The address of a service as a person gave it. Raises SettingsError, naming `name`, where it is none.

    gRPC itself takes nearly anything for a host name, and then finds nobody there.
    """
    match = _ADDRESS.fullmatch(server)
    if match is None or not 1 <= int(match["port"] or 1) <= 65535:
        raise SettingsError(
            f"{name}: {server!r} is wrong: must be host:port, as 127.0.0.1:40700 or [::1]:40700, or unix:PATH"
        )
    return server


def leads_to(address: str, sources: "Sources") -> bool:
    """Whether the client's commands find the service on `address` without being told."""
    try:
        return own_address(sources) == address
    except SettingsError:
        return False


def callable_address(address: str) -> str:
    """Where a service that listens on `address` is called from this machine: "any address" is none to call."""
    host, colon, port = address.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}{colon}{port}"


def unreachable(server: str) -> str:
    """The line for a service from which nothing came."""
    return f"no service answers on {server}; {_ELSEWHERE}"


def own_command() -> str:
    """What to type to run this program again from here: `otpmail` where that finds it, else the way it was started."""
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
