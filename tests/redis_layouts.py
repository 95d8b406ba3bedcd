"""Servers of Redis that take over from each other: a master with a replica and Sentinels, and a small cluster."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from ports import HOST
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from integration.servers import CertificateFiles

SERVICE = "codes"
_SLOTS = 16384
_MASTERS = 3
_REPLICAS = 2  # so that one that has taken over has a replica at once
_ALL_KNOWN = f"slaves={_REPLICAS},sentinels=3"
_SECONDS = 30.0
_POLL_SECONDS = 0.05


class _Layout:
    """Servers that are started together, and end together; with `tls` they reach each other by TLS only.

    A replica takes over `gone_seconds` after the master is gone. A busy machine may keep a master silent for a second.
    """

    def __init__(self, tls: CertificateFiles | None = None, *, gone_seconds: float = 1.0) -> None:
        self._tls = tls
        self._gone_milliseconds = round(1000 * gone_seconds)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def master(self) -> RedisServer:
        """The server that has our keys."""
        raise NotImplementedError

    def wait_until_replicated(self) -> None:
        """Return once all replicas have what the master has now, so that none of them takes over without it."""
        master = self.master
        latest = _offsets("master_repl_offset:", master)[0]
        _wait(
            lambda: len([one for one in _offsets(",offset=", master) if one >= latest]) == _REPLICAS,
            "the replicas have all",
        )

    def _start(self) -> None:
        raise NotImplementedError

    def _server(self, *options: str, sentinel: bool = False) -> RedisServer:
        return self._stack.enter_context(RedisServer("redis-7", *options, sentinel=sentinel, tls=self._tls))

    def _url(self, layout: str, servers: Iterable[RedisServer]) -> str:
        scheme = "redis" if self._tls is None else "rediss"
        return f"{scheme}+{layout}://{','.join(f'{HOST}:{server.reached_at}' for server in servers)}"


class WatchedServers(_Layout):
    """A master, two replicas, and three Sentinels that let one take over."""

    def __init__(self, tls: CertificateFiles | None = None, *, gone_seconds: float = 1.0) -> None:
        super().__init__(tls, gone_seconds=gone_seconds)
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    @property
    def url(self) -> str:
        """The value of STORE_URL that leads here."""
        return f"{self._url('sentinel', self.sentinels)}/{SERVICE}"

    @property
    def master(self) -> RedisServer:
        """The server that the first Sentinel takes for the master."""
        answer = self.sentinels[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if f"\r\n{server.reached_at}\r\n" in answer)

    def set_password_of_sentinels(self, password: str) -> None:
        """Let the Sentinels ask each other and everybody else for this password."""
        for sentinel in self.sentinels:
            sentinel.command("SENTINEL", "CONFIG", "SET", "sentinel-pass", password)
        for sentinel in self.sentinels:
            sentinel.command("ACL", "SETUSER", "default", "resetpass", f">{password}")
            sentinel.password = password

    def wait_for_replicas(self) -> None:
        """Return once the master has its replicas, and each Sentinel knows them and the other Sentinels."""
        _wait(lambda: _replicas_of(self.master) == _REPLICAS, "the replicas are online")
        for sentinel in self.sentinels:
            _wait(lambda asked=sentinel: _ALL_KNOWN in asked.command("INFO", "sentinel"), "a Sentinel knows all")

    def _start(self) -> None:
        master = self._server()
        of_master = ("--replicaof", HOST, str(master.reached_at))
        self.servers = [master, *(self._server(*of_master) for _ in range(_REPLICAS))]
        for _ in range(3):
            sentinel = self._server(sentinel=True)
            sentinel.command("SENTINEL", "MONITOR", SERVICE, HOST, master.reached_at, 2)
            for name, value in (("down-after-milliseconds", self._gone_milliseconds), ("failover-timeout", 3000)):
                sentinel.command("SENTINEL", "SET", SERVICE, name, value)
            self.sentinels.append(sentinel)
        self.wait_for_replicas()


class Cluster(_Layout):
    """Three masters with a third of the slots each, and two replicas of the master that has the slot."""

    def __init__(self, slot: int, tls: CertificateFiles | None = None, *, gone_seconds: float = 1.0) -> None:
        super().__init__(tls, gone_seconds=gone_seconds)
        self._slot = slot
        self.nodes: list[RedisServer] = []
        self.replicas: list[RedisServer] = []

    @property
    def url(self) -> str:
        """The value of STORE_URL that leads here; it names the nodes that do not have our slot."""
        return self._url("cluster", (node for node in self.nodes if node is not self.master))

    @property
    def master(self) -> RedisServer:
        """The node that had our slot at the start."""
        return self.nodes[self._slot * _MASTERS // _SLOTS]

    def _start(self) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            str(self._gone_milliseconds),
            "--cluster-replica-validity-factor",
            "0",
            *(() if self._tls is None else ("--tls-cluster", "yes")),
        )
        self.nodes = [self._server(*options) for _ in range(_MASTERS)]
        self.replicas = [self._server(*options) for _ in range(_REPLICAS)]
        bounds = [-(-_SLOTS * number // _MASTERS) for number in range(_MASTERS + 1)]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in (*self.nodes[1:], *self.replicas):
            self.nodes[0].command("CLUSTER", "MEET", HOST, node.reached_at)
        known = f"cluster_known_nodes:{_MASTERS + _REPLICAS}"
        for node in (*self.nodes, *self.replicas):
            _wait(lambda asked=node: known in asked.command("CLUSTER", "INFO"), "a node knows all")
            _wait(lambda asked=node: "cluster_state:ok" in asked.command("CLUSTER", "INFO"), "a node is ready")
        master_id = self.master.command("CLUSTER", "MYID").strip()
        for replica in self.replicas:
            _wait(
                lambda asked=replica: asked.command("CLUSTER", "REPLICATE", master_id).startswith("+OK"),
                "a node is a replica",
            )
        _wait(lambda: _replicas_of(self.master) == _REPLICAS, "the replicas are online")


def _replicas_of(server: RedisServer) -> int:
    return server.command("INFO", "replication").count("state=online")


def _offsets(words: str, server: RedisServer) -> list[int]:
    """Return the numbers behind these words in what a master says of its replication."""
    return [int(found) for found in re.findall(rf"{words}(\d+)", server.command("INFO", "replication"))]


def _wait(happened: object, what: str) -> None:
    """Wait for something that only asking a server shows."""
    assert callable(happened)
    deadline = time.monotonic() + _SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_SECONDS} s until {what}")
        time.sleep(_POLL_SECONDS)
