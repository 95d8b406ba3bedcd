"""The health of the services: it follows the relays. All is asked over gRPC, or over HTTP/2 by hand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from calls import reason, retry_seconds
from delivery.fakes import Nothing
from http2 import Connection, message
from otpmail.api.batching import Batching
from otpmail.api.guard import Guard
from otpmail.api.parse import parsers
from otpmail.api.reads import Reads
from otpmail.events import DialFailed, RelayDown, RelayIdle, RelayUp
from otpmail.limits.memory import Memory
from otpmail.limits.streams import StreamLimit
from otpmail.rpc.health import LIVENESS, PROBLEM, SERVICES, Health
from otpmail.rpc.server import ENDED
from otpmail.rpc.table import GuardedServer, MethodTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_Messages: Any = health_pb2  # its type stubs are older than List
_DESCRIBED: Any = health_pb2.DESCRIPTOR.services_by_name.values()


class Served:
    """A Health, served on a port of its own, and a client of it."""

    def __init__(self, health: Health, port: int, channel: grpc.aio.Channel) -> None:
        self.health = health
        self.port = port
        self.stub: Any = health_pb2_grpc.HealthStub(channel)

    async def states(self) -> dict[str, int]:
        """Ask for every state by List, and compare each with that of Check."""
        listed = {
            name: state.status for name, state in (await self.stub.List(_Messages.HealthListRequest())).statuses.items()
        }
        for name, status in listed.items():
            assert (await self.stub.Check(health_pb2.HealthCheckRequest(service=name))).status == status
        return listed

    async def overall(self) -> set[int]:
        """Return the different states of our services; liveness must be SERVING."""
        states = await self.states()
        assert states.pop(LIVENESS) == _SERVING
        assert set(states) == set(SERVICES)
        return set(states.values())

    def watch(self, service: str = "") -> Any:
        """Watch a service."""
        return aiter(self.stub.Watch(health_pb2.HealthCheckRequest(service=service)))


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Serve a Health."""
    async with _serve() as served:
        yield served


@asynccontextmanager
async def _serve() -> AsyncIterator[Served]:
    server, health, methods = grpc.aio.server(), Health(StreamLimit(1 << 30, of_connection=4)), MethodTable()
    add: Any = health_pb2_grpc.add_HealthServicer_to_server
    reads = Reads(Memory(1 << 30, Nothing(), Nothing()), most_octets=1 << 20, ended=ENDED)
    add(health, GuardedServer(methods, Guard(Batching(most_seconds=0), parsers(_DESCRIBED, ()), reads)))
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(health, port, channel)
    await server.stop(0)


async def test_a_check_says_why_nothing_is_served(served: Served) -> None:
    """The trailing metadata of an answer have the first reason that counts, and nothing where all is well."""

    async def problem(service: str = "") -> str:
        call = served.stub.Check(health_pb2.HealthCheckRequest(service=service))
        await call
        return str(dict(await call.trailing_metadata()).get(PROBLEM, ""))

    assert await problem() == await problem("mail.OtpService") == "no relay is up"
    assert await problem(LIVENESS) == ""
    served.health.set_store(up=False)
    assert await problem() == "the store can't be written"
    served.health.notify(RelayUp("a", "bdat", 16))
    served.health.set_store(up=True)
    assert await problem() == ""
    served.health.stop()
    assert await problem() == "the service is stopping"


async def test_a_check_says_why_no_relay_is_up() -> None:
    """The reason has the cause too, and a change of the cause alone wakes those who pass it on."""
    cause = ""
    health = Health(StreamLimit(1 << 30), lambda: cause)
    health.notify(RelayDown("a", "a: shop@example.org is refused", 1.0))
    assert health.problem == "no relay is up"
    for cause in ("the relay can't be reached", "the relay refuses the sign-in of this service"):
        changed = asyncio.ensure_future(health.changed())
        await asyncio.sleep(0)
        health.notify(DialFailed("a", "a: shop@example.org is refused", 1.0))
        async with asyncio.timeout(5):
            await changed
        assert health.problem == f"no relay is up: {cause}"


async def test_services_are_serving_while_any_relay_is_up(served: Served) -> None:
    """All services are SERVING while at least one relay is up, whichever it is."""
    assert await served.overall() == {_NOT_SERVING}
    served.health.notify(RelayDown("a", "refused", 1.0))
    assert await served.overall() == {_NOT_SERVING}
    served.health.notify(RelayUp("b", "bdat", 16))
    assert await served.overall() == {_SERVING}
    served.health.notify(RelayDown("b", "lost", 1.0))
    assert await served.overall() == {_NOT_SERVING}


async def test_an_idle_relay_is_not_up(served: Served) -> None:
    """A relay without an open connection does not count: once the other one is down, no service is SERVING."""
    for event in (RelayUp("b", "bdat", 16), RelayUp("a", "bdat", 16), RelayIdle("b")):
        served.health.notify(event)
    assert await served.overall() == {_SERVING}
    served.health.notify(RelayDown("a", "lost", 1.0))
    assert await served.overall() == {_NOT_SERVING}


async def test_without_its_store_no_service_is_serving(served: Served) -> None:
    """A store that takes no changes is NOT_SERVING, whatever the relays are, and watchers see it at once."""
    served.health.notify(RelayUp("a", "bdat", 16))
    watched = served.watch()
    assert (await anext(watched)).status == _SERVING
    served.health.set_store(up=False)
    assert (await anext(watched)).status == _NOT_SERVING
    assert await served.overall() == {_NOT_SERVING}
    served.health.set_store(up=True)
    assert (await anext(watched)).status == _SERVING
    assert await served.overall() == {_SERVING}


async def test_after_a_stop_no_service_is_serving(served: Served) -> None:
    """During a stop health is NOT_SERVING for good, also when a relay comes up; liveness goes on."""
    served.health.notify(RelayUp("a", "bdat", 16))
    served.health.stop()
    served.health.notify(RelayUp("b", "bdat", 16))
    assert await served.overall() == {_NOT_SERVING}


async def test_a_watcher_sees_each_change_once(served: Served) -> None:
    """Watch begins with the present state and has each change after it, and nothing in between."""
    watch = served.watch("otpmail.v1.MailService")
    assert (await anext(watch)).status == _NOT_SERVING
    for _ in range(3):
        served.health.notify(RelayUp("a", "bdat", 16))
        served.health.notify(RelayUp("b", "bdat", 16))
        assert (await anext(watch)).status == _SERVING
        served.health.notify(RelayDown("a", "lost", 1.0))
        served.health.notify(RelayDown("b", "lost", 1.0))
        assert (await anext(watch)).status == _NOT_SERVING


async def test_liveness_does_not_change(served: Served) -> None:
    """A watcher of liveness gets SERVING once, whatever the relay does and also in a stop."""
    watch = served.watch(LIVENESS)
    assert (await anext(watch)).status == _SERVING
    following = asyncio.ensure_future(anext(watch))
    other = served.watch()
    assert (await anext(other)).status == _NOT_SERVING
    served.health.notify(RelayUp("a", "bdat", 16))
    assert (await anext(other)).status == _SERVING
    served.health.stop()
    assert (await anext(other)).status == _NOT_SERVING
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_an_unknown_service(served: Served) -> None:
    """A name that is no service is NOT_FOUND by Check, and SERVICE_UNKNOWN by Watch, which goes on."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = served.watch("other")
    assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_watcher_that_does_not_read_delays_nobody(served: Served) -> None:
    """A client whose flow control lets nothing through keeps neither other watchers nor a stop waiting."""
    async with Connection(f"127.0.0.1:{served.port}", window=0) as mute:
        for _ in range(3):
            stream = mute.call("/grpc.health.v1.Health/Watch")
            await mute.send(stream, message(0), end=True)
            await mute.wait_for_headers(stream)
        watch = served.watch()
        assert (await anext(watch)).status == _NOT_SERVING
        served.health.notify(RelayUp("a", "bdat", 16))
        assert (await asyncio.wait_for(anext(watch), 20)).status == _SERVING
        served.health.stop()
        assert (await asyncio.wait_for(anext(watch), 20)).status == _NOT_SERVING


async def test_a_connection_has_few_watchers(served: Served) -> None:
    """More watchers of a connection than it may have are RESOURCE_EXHAUSTED; one that leaves makes room for another."""
    watchers = [served.stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(4)]
    for watch in watchers:
        assert (await watch.read()).status == _NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(served.watch())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == "TOO_MANY_STREAMS"
    assert retry_seconds(caught.value) > 0
    assert await served.overall() == {_NOT_SERVING}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", (("grpc.use_local_subchannel_pool", 1),)) as other:
        stub: Any = health_pb2_grpc.HealthStub(other)
        theirs = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(theirs)).status == _NOT_SERVING
    watchers[0].cancel()
    async with asyncio.timeout(20):
        while not await _is_watched(served):
            pass


async def _is_watched(served: Served) -> bool:
    try:
        return bool(await anext(served.watch()))
    except grpc.aio.AioRpcError:
        return False


async def test_health_is_serving_while_another_process_serves() -> None:
    """One of several processes says NOT_SERVING only where all do: a stop of its own, or its relays, do not show."""
    async with _serve() as served:
        watch = served.watch()
        assert (await anext(watch)).status == _NOT_SERVING
        served.health.set_others(serve=True)
        assert (await anext(watch)).status == _SERVING
        assert await served.overall() == {_SERVING}
        assert served.health.problem == "no relay is up"
        served.health.stop()
        assert await served.overall() == {_SERVING}
        served.health.set_others(serve=False)
        assert (await anext(watch)).status == _NOT_SERVING
