"""Opens channels to a service, and says in words why none answers."""

import os
import socket
import stat
from pathlib import Path

import grpc

from otpmail.cli import endpoint

_ELSEWHERE = "start one (otpmail serve, otpmail dev), or name another by --server, OTPMAIL_SERVER, or HOST and PORT"
_LOOK_SECONDS = 1.0


def open_channel(address: str) -> grpc.Channel:
    """Open a channel to the service at `address`.

    A service on this machine is called directly. Docker gives each container the proxy variables of its host, and no
    proxy reaches a container's own loopback. For any other service gRPC reads these variables, NO_PROXY among them.
    """
    from otpmail.settings import grpc_target

    options = (("grpc.enable_http_proxy", 0),) if _is_here(address) else ()
    return grpc.insecure_channel(grpc_target(address), options)


def unreachable(address: str) -> str:
    """The line for a service that does not answer: for a Unix socket it names the cause, which the caller may mend."""
    path = endpoint.socket_path(address)
    if path and (refusal := _refusal(path)):
        return refusal
    no_socket = ", where there is no socket" if path and not Path(path).exists() else ""
    return f"no service answers on {address}{no_socket}; {_ELSEWHERE}"


def _is_here(address: str) -> bool:
    from otpmail.settings import is_loopback, is_present

    host = address if endpoint.socket_path(address) else address.rpartition(":")[0]
    return is_loopback(host) or is_present(host)


def _refusal(path: str) -> str:
    """Return why a Unix socket can't be connected to, where that is not the lack of a service behind it."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"unix:{path} can't be reached: {error.strerror}, for one of its folders"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_LOOK_SECONDS)
        try:
            probe.connect(path)
        except PermissionError as error:
            belongs = f"{stat.filemode(found.st_mode)} of user {found.st_uid}, group {found.st_gid}"
            return (
                f"unix:{path} can't be connected to by user {os.geteuid()}: {error.strerror}; it is {belongs}, "
                "which its service's SOCKET_MODE decides"
            )
        except OSError:
            return ""
    return ""
