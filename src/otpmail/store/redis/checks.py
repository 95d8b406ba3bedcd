"""Checks by INFO that a server is fit to keep codes and mails: at the start, and again from time to time."""

import logging
from collections.abc import Mapping

from redis.exceptions import RedisError

from otpmail.errors import StoreError
from otpmail.store.redis.client import Client
from otpmail.store.redis.replies import NO_REDIS, tls_hint

_OLDEST = (6, 2)
_log = logging.getLogger("otpmail")


async def check_server(client: Client, *, allow_volatile: bool, is_cluster: bool, replicas: int) -> None:
    """Connect, and check version, role, eviction and AOF. Raises StoreError with one line that says what to do.

    `replicas` is how many must have each change of a code. Where there are fewer now, the log has a warning.
    """
    try:
        info = _parsed(await client.probe("INFO"))
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreError(f"{client.fault(error).problem}{tls_hint(error, has_tls=client.has_tls)}") from error
    server = f"STORE_URL: the server at {client.endpoint}"
    problem = _fault(info, is_cluster=is_cluster) or _eviction(info) or ("" if allow_volatile else _volatility(info))
    if problem:
        raise StoreError(f"{server} {problem}")
    connected = int(info.get("connected_slaves", "0"))
    if connected < replicas:
        _log.warning(
            "%s has %d replicas, and codes are checked only while it has %d (STORE_WAIT_REPLICAS)",
            *(server, connected, replicas),
            extra={"event": "store-few-replicas", "fields": {"connected": connected, "wanted": replicas}},
        )


class FitnessWatch:
    """Looks whether the server may still be trusted to keep what it is given: a failover may lead to another one.

    Each fault is logged once, until it has gone. The service goes on, since a stop would keep no more.
    """

    def __init__(self, client: Client, *, allow_volatile: bool) -> None:
        self._client = client
        self._allow_volatile = allow_volatile
        self._problem = ""

    def __repr__(self) -> str:
        return f"<FitnessWatch {self._problem or 'fit'}>"

    async def look(self) -> None:
        """Ask the server once. Raises Unavailable while it is down."""
        info = _parsed(await self._client.command("INFO"))
        if info.get("loading", "0") != "0":  # it has no AOF until it has read that, by its own words
            return
        problem = _eviction(info) or ("" if self._allow_volatile else _volatility(info))
        if problem and problem != self._problem:
            text, fields = "STORE_URL: the server at %s %s", {"event": "store-unfit", "fields": {}}
            _log.error(text, self._client.endpoint, problem, extra=fields)
        self._problem = problem


def _parsed(answer: object) -> Mapping[str, str]:
    if not isinstance(answer, bytes):
        return {}
    lines = answer.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _fault(info: Mapping[str, str], *, is_cluster: bool) -> str:
    """Say why no service may use the server, or nothing."""
    version = info.get("redis_version", "")
    if not version:
        return NO_REDIS
    if _numbers(version) < _OLDEST:
        return f"is Redis {version}; 6.2 or later is needed"
    if info.get("loading", "0") != "0":  # it has no AOF until it has read that, by its own words
        return "is reading its data; start otpmail again once it has"
    if (info.get("cluster_enabled") == "1") is not is_cluster:
        return "is part of no cluster; write redis://" if is_cluster else "is part of a cluster; write redis+cluster://"
    if info.get("role") != "master":
        return "is a replica; name its master, or the Sentinels with redis+sentinel://"
    return ""


def _eviction(info: Mapping[str, str]) -> str:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return f"may forget what it was given (maxmemory-policy {policy}); set maxmemory-policy noeviction"
    return ""


def _volatility(info: Mapping[str, str]) -> str:
    if info.get("aof_enabled") == "1":
        return ""
    return (
        "forgets at a restart what was promised, since it has no AOF; set appendonly yes, or accept that with "
        "STORE_ALLOW_VOLATILE=true"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
