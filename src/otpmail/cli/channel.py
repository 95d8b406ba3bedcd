"""Opens channels to a service, and says in words why none answers."""

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from otpmail.cli import endpoint
from otpmail.cli.token import WithToken

if TYPE_CHECKING:
    from otpmail.settings import ClientSettings

_ELSEWHERE = "start one (otpmail serve, otpmail dev), or name another by --server, OTPMAIL_SERVER, or HOST and PORT"
_LOOK_SECONDS = 1.0


def open_channel(service: endpoint.Service) -> grpc.Channel:
    """Open a channel to a service, with the token and the TLS of the OTPMAIL_ settings.

    A service on this machine is called directly. Docker gives each container the proxy variables of its host, and no
    proxy reaches a container's own loopback. For any other service gRPC reads these variables, NO_PROXY among them.
    """
    from otpmail.settings import grpc_target

    address, settings = service
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)] if _is_here(address) else []
    target = grpc_target(address)
    if settings.ca_file is None or endpoint.socket_path(address):
        channel = grpc.insecure_channel(target, tuple(options))
    else:
        if settings.tls_name:
            options.append(("grpc.ssl_target_name_override", settings.tls_name))
        channel = grpc.secure_channel(target, _credentials(settings, settings.ca_file), tuple(options))
    token = settings.token.get_secret_value()
    return grpc.intercept_channel(channel, WithToken(token)) if token else channel


def _credentials(settings: "ClientSettings", ca_file: Path) -> grpc.ChannelCredentials:
    chain, key_file = settings.cert_file, settings.key_file or settings.cert_file
    return grpc.ssl_channel_credentials(
        ca_file.read_bytes(),
        None if key_file is None else key_file.read_bytes(),
        None if chain is None else chain.read_bytes(),
    )


def unreachable(address: str, details: str = "") -> str:
    """The line for a service that does not answer, with the cause where the caller may mend it.

    `details` are gRPC's own words, if there are any.
    """
    from otpmail.client.status import connection_problem

    if problem := connection_problem(details):
        return f"no call reaches the service on {address}: {problem}"
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
