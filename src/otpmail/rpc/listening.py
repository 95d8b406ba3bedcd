"""Binds every address of HOST, or none: gRPC by itself is content with one of several, and does not say why.

Each TCP address is first bound by a socket of our own, which learns the cause of a failure (`held_port`).
"""

import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from otpmail.errors import SettingsError
from otpmail.held_port import TAKEN, cant_listen, hold_port, taken
from otpmail.settings import ServerSettings
from otpmail.settings.listen import ListenAddress, grpc_target

_LOOK_SECONDS = 1.0


class Listening(NamedTuple):
    """The addresses that are bound, in the order of HOST, and those of its names that this machine lacks."""

    addresses: tuple[str, ...]
    absent: tuple[str, ...]


def listen(settings: ServerSettings, add_port: Callable[[str], int], *, is_held: bool = False) -> Listening:
    """Bind all addresses of HOST on one port; `add_port` is gRPC's, and raises RuntimeError where it fails.

    With `is_held` a supervisor holds the port already, for several processes that share it.

    Raises SettingsError, which names HOST or PORT, when one of them can't be bound. No Unix socket is left then.
    """
    if is_held:
        return Listening(_add_all(settings.hosts, settings.port, settings, add_port), ())
    for host in settings.hosts:
        if host.path:
            _check_path(host)
    with hold_port([host for host in settings.hosts if not host.path], settings.port) as held:
        bound = [host for host in settings.hosts if host not in held.absent]
        addresses = _add_all(bound, held.port, settings, add_port)
    return Listening(addresses, tuple(host.with_port(held.port) for host in held.absent))


def _add_all(
    hosts: Sequence[ListenAddress], port: int, settings: ServerSettings, add_port: Callable[[str], int]
) -> tuple[str, ...]:
    with ExitStack() as made:
        for host in hosts:
            _add(host, port, settings.socket_mode, add_port)
            if host.path:
                made.callback(Path(host.path).unlink, missing_ok=True)
        made.pop_all()
    return tuple(host.with_port(port) for host in hosts)


def _add(host: ListenAddress, port: int, mode: int | None, add_port: Callable[[str], int]) -> None:
    target = grpc_target(host.with_port(port))
    try:
        if host.path and mode is not None:
            with _umask(~mode & 0o777):  # a chmod would come after the first caller
                add_port(target)
        else:
            add_port(target)
    except RuntimeError:
        if not host.path:
            raise taken(host, port) from None
        there = "a socket is there that this user may not replace"
        why = there if Path(host.path).exists() else "the system makes no socket there"
        raise SettingsError(cant_listen("HOST", host, port, why)) from None


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Unix sockets.


def _check_path(host: ListenAddress) -> None:
    """Raise SettingsError where gRPC would fail, or would take the path from a server that does not notice."""
    why = _why_not(Path(host.path))
    if why:
        raise SettingsError(cant_listen("HOST", host, 0, why))


def _why_not(path: Path) -> str:
    """Return why no socket can be made at `path`, empty where one can. gRPC replaces one that a process left behind."""
    folder = path.parent
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}"
        kind = path.stat().st_mode if path.exists() else None
    except OSError as error:
        return f"folder {folder}: {error.strerror or error}"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"this user may not make a socket in {folder}"
    if kind is None:
        return ""
    return _why_in_use(path) if stat.S_ISSOCK(kind) else "a file is there that is no socket"


def _why_in_use(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_LOOK_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # its server has gone
            return ""
        except PermissionError:
            return "a socket is there that this user may not connect to"
        except OSError:  # one with a full backlog, or of another kind
            return TAKEN
    return TAKEN
