"""Opens connections to the server that takes changes: the one of the URL, the Sentinels' master, or a cluster's."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Protocol

from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from otpmail.store.redis.replies import kind_of
from otpmail.values import frozen

Address = tuple[str, int]

_SIGN_IN_OF_SENTINELS: Mapping[str, str] = MappingProxyType(
    {
        "NOAUTH": "is a Sentinel that wants a password: set STORE_SENTINEL_PASSWORD",
        "WRONGPASS": "is a Sentinel that refuses STORE_SENTINEL_PASSWORD",
        "NOPASS": "is a Sentinel that knows no password, but STORE_SENTINEL_PASSWORD is set",
    }
)

TIMEOUT = 1.0
"""Seconds within which a server accepts a connection, and answers."""

_LAST_LOOK = 0.05


@frozen(kw_only=True)
class Access:
    """How a server is connected to: `context` with TLS, for `tls_name` where its certificate has another name."""

    user: str = ""
    password: str = ""
    database: int = 0
    context: ssl.SSLContext | None = None
    tls_name: str | None = None

    def __repr__(self) -> str:
        return f"<Access {self.user or 'default'} database={self.database} tls={self.context is not None}>"


class _Connection(Connection):
    """A connection with our own TLS context, which may ask for a certificate of another name than the host's."""

    def __init__(self, address: Address, access: Access) -> None:
        self._access = access
        super().__init__(
            host=address[0],
            port=address[1],
            db=access.database,
            username=access.user or None,
            password=access.password or None,
            protocol=2,
            driver_info=None,
            retry=Retry(NoBackoff(), 0),
            # `open_connection` and the client's batches have a time limit each, which costs less than one a command.
            socket_timeout=None,
            socket_connect_timeout=None,
        )

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        if self._access.context is not None:
            arguments |= {"ssl": self._access.context, "server_hostname": self._access.tls_name or self.host}
        return arguments


@asynccontextmanager
async def time_limit(seconds: float = TIMEOUT) -> AsyncIterator[None]:
    """Raise TimeoutError where the block takes longer, but not for a pause of this process alone.

    After a pause the answer may be there and unread, while the time is over. So the loop reads once more at the end.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds, lambda: limit.reschedule(loop.time() + _LAST_LOOK))
        try:
            yield
        finally:
            timer.cancel()


async def open_connection(address: Address, access: Access) -> Connection:
    """Connect and sign in. Raises RedisError, OSError or TimeoutError."""
    connection = _Connection(address, access)
    try:
        async with time_limit():
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await hang_up(connection)
        raise
    return connection


async def hang_up(connection: Connection) -> None:
    """Close a connection, without waiting for a server that may not answer."""
    await connection.disconnect(nowait=True)
    await asyncio.sleep(0)  # the loop closes the socket in its next turn


async def ask(address: Address, access: Access, *command: str | int) -> Any:
    """Return a server's answer to one command, over a connection of its own. Raises as `open_connection` does."""
    connection = await open_connection(address, access)
    try:
        async with time_limit():
            await connection.send_command(*command)
            return await connection.read_response()
    finally:
        await hang_up(connection)


class Locator(Protocol):
    """Finds the server that takes changes. `asked` is the last one that was asked for it, or will be first."""

    asked: Address

    async def find(self) -> Address:
        """Return its address. Raises RedisError, OSError or TimeoutError."""


class OneServer:
    """The server that STORE_URL names."""

    def __init__(self, address: Address) -> None:
        self.asked = address

    async def find(self) -> Address:
        """Return its address."""
        return self.asked


class BySentinel:
    """The master of a service, as the first Sentinel that answers knows it."""

    def __init__(self, sentinels: tuple[Address, ...], service: str, access: Access) -> None:
        self.asked = sentinels[0]
        self._sentinels = list(sentinels)
        self._service = service
        self._access = access

    async def find(self) -> Address:
        """Ask the Sentinels in turn; the one that answered is asked first the next time."""
        failure: Exception = TimeoutError("no Sentinel answers")
        for sentinel in tuple(self._sentinels):
            self.asked = sentinel
            try:
                found = await ask(sentinel, self._access, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            except (RedisError, OSError, TimeoutError) as error:
                refused = _SIGN_IN_OF_SENTINELS.get(kind_of(error)) if isinstance(error, RedisError) else None
                failure = error if refused is None else RedisError(refused)
                continue
            if found is None:
                failure = RedisError(f"is a Sentinel that watches no service of the name {self._service!r}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return found[0].decode(), int(found[1])
        raise failure


class ByCluster:
    """The master of the slot that all our keys are in, as the first node that answers knows it."""

    def __init__(self, nodes: tuple[Address, ...], slot: int, access: Access) -> None:
        self.asked = nodes[0]
        self._named = nodes
        self._known: tuple[Address, ...] = nodes
        self._slot = slot
        self._access = access

    async def find(self) -> Address:
        """Ask the nodes that were seen last, then those of STORE_URL."""
        failure: Exception = TimeoutError("no node answers")
        for node in dict.fromkeys((*self._known, *self._named)):
            self.asked = node
            try:
                ranges = await ask(node, self._access, "CLUSTER", "SLOTS")
            except (RedisError, OSError, TimeoutError) as error:
                failure = error
                continue
            # Each range is: first slot, last slot, master, replicas; a server is: host, port. An empty host is ours.
            servers = [server for _, _, *others in ranges for server in others]
            self._known = tuple(
                (server[0].decode() or node[0], server[1]) for server in servers if server[0] is not None
            )
            for first, last, master, *_ in ranges:
                if first <= self._slot <= last:
                    return (master[0] or b"").decode() or node[0], master[1]
            failure = RedisError("knows no node that has our keys: the cluster is not set up, or in part down")
        raise failure
