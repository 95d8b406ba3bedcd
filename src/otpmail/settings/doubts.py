"""Finds what is set in vain: misspelt names, and settings without the one that gives them an effect.

A start with them works, so they are no errors. The log and `otpmail check` warn of them.
"""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from otpmail.settings.hosts import is_loopback
from otpmail.settings.loader import Settings, misspelt
from otpmail.settings.sources import Sources

_OF_HTTP = ("HTTP_HOST", "HTTP_ALLOWED_HOSTS", "HTTP_CORS_ORIGINS")
_OF_SENTINELS = ("STORE_SENTINEL_PASSWORD", "STORE_SENTINEL_PASSWORD_FILE")
_OF_REDIS = (
    *("STORE_PASSWORD", "STORE_PASSWORD_FILE", *_OF_SENTINELS),
    *("STORE_CA_FILE", "STORE_CERT_FILE", "STORE_KEY_FILE", "STORE_TLS_NAME"),
    *("STORE_NAMESPACE", "STORE_ALLOW_VOLATILE", "STORE_WAIT_REPLICAS", "STORE_LEASE_SECONDS"),
)


class Doubt(NamedTuple):
    """A line to warn with, which opens with `setting`. `is_unknown`: that is probably the misspelt name of another."""

    setting: str
    line: str
    is_unknown: bool = False


class _Group(NamedTuple):
    """Settings that have no effect, since `owner`, another setting, is as `why` says."""

    owner: str
    why: str
    names: Collection[str]


def doubts(
    settings: Settings, sources: Sources, fixed: Mapping[str, str | None] = MappingProxyType({})
) -> Iterator[Doubt]:
    """Yield what is set in vain in `sources`, from which `settings` were loaded with those in `fixed` in their place.

    A setting in `fixed` is not doubted, and neither is one that depends on it: the command that fixes it says so.
    """
    for problem in misspelt(sources):
        yield Doubt(problem.names[0], problem.line, is_unknown=True)
    given = {name for layer in sources.layers for name in layer} - fixed.keys()
    for owner, why, names in _without_effect(settings):
        for name in names:
            if name in given and owner not in fixed:
                yield Doubt(name, f"{name}: has no effect, since {why}")


def _without_effect(settings: Settings) -> Iterator[_Group]:
    """Yield the settings that have no effect beside the others. Switches that are off ask for nothing."""
    server, store = settings.server, settings.store
    if server.http_port is None:
        yield _Group("HTTP_PORT", "HTTP_PORT is not set", _OF_HTTP)
    elif not is_loopback(server.http_host):
        why = f"HTTP_HOST is {server.http_host}, where a request may have any Host; it counts on loopback only"
        yield _Group("HTTP_HOST", why, ("HTTP_ALLOWED_HOSTS",))
    if not any(address.path for address in server.hosts):
        yield _Group("HOST", "HOST has no Unix socket, such as unix:/run/otpmail.sock", ("SOCKET_MODE",))
    if not (server.asks_callers or server.health_open):
        why = "callers are not asked who they are; set CALLERS_FILE or TLS_CLIENT_CA_FILE"
        yield _Group("CALLERS_FILE", why, ("HEALTH_OPEN",))
    if server.processes == 1 and server.process_hang_seconds:
        yield _Group("PROCESSES", "PROCESSES is 1, and a process alone has no supervisor", ("PROCESS_HANG_SECONDS",))
    if store.redis is None:
        off = {"STORE_ALLOW_VOLATILE": not store.allow_volatile, "STORE_WAIT_REPLICAS": store.wait_replicas == 0}
        names = [name for name in _OF_REDIS if not off.get(name)]
        yield _Group("STORE_URL", "STORE_URL names no server of Redis", names)
    elif store.redis.layout != "sentinel":
        yield _Group("STORE_URL", "STORE_URL names no Sentinels", _OF_SENTINELS)
