"""The one subscription of this process to channels of the server, which is opened again when it is lost."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import TIMEOUT, hang_up
from otpmail.store.redis.replies import is_reply, kind_of

_log = logging.getLogger("otpmail")

_RETRY_SECONDS = 1.0
_SILENT_SECONDS = 15.0  # after which the server is asked whether it is there

Receive = Callable[[bytes], None]


class Subscription:
    """Hands what is published on each of its channels to the function that was added for it.

    It has a connection of its own. A message that is published while that is lost does not come. One that can't be
    read, as of a later version, is passed over.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._receivers: dict[bytes, Receive] = {}
        self._connected: list[Callable[[], None]] = []
        self._refused: set[bytes] = set()
        self._faults: set[str] = set()

    def __repr__(self) -> str:
        return f"<Subscription to {len(self._receivers)} channels>"

    def add(self, channel: bytes, receive: Receive) -> None:
        """Subscribe to a channel too, once `run` connects."""
        self._receivers[channel] = receive

    def call_when_connected(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever all channels are subscribed to: what was published before may have been missed."""
        self._connected.append(callback)

    async def run(self) -> None:
        """Receive until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001  without this task used codes of others would go unseen
                self._note_fault("the subscription to the store has failed, and begins again", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        connection = await self._client.connect()
        try:
            for channel in self._receivers:
                await self._subscribe(connection, channel)
            for callback in self._connected:
                callback()
            while True:
                self._receive(await self._next(connection))
        finally:
            await hang_up(connection)

    async def _next(self, connection: Connection) -> Any:
        """Return the next message. A silent connection is asked for one, since its server may have gone unseen."""
        message = await connection.read_response(timeout=_SILENT_SECONDS, disconnect_on_error=False)
        if message is None:
            await connection.send_command("PING")
            message = await _answer(connection)
        return message

    async def _subscribe(self, connection: Connection, channel: bytes) -> None:
        await connection.send_command("SUBSCRIBE", channel)
        try:
            while (message := await _answer(connection))[0] != b"subscribe":
                self._receive(message)
        except RedisError as error:
            if not is_reply(error) or kind_of(error) != "NOPERM":
                raise
            self._note_refusal(channel)

    def _receive(self, message: Any) -> None:
        kind, channel, *octets = message
        if kind != b"message":
            return
        try:
            self._receivers[channel](*octets)
        except Exception as error:  # noqa: BLE001  one message must not end the others
            self._note_fault(f"a message on the channel {channel.decode()} can't be read", error)

    def _note_fault(self, text: str, error: Exception) -> None:
        """Log each kind of fault once: a later version may say more every moment."""
        if text not in self._faults:
            self._faults.add(text)
            _log.warning("%s: %r", text, error, extra={"event": "store-channel-fault", "fields": {}})

    def _note_refusal(self, channel: bytes) -> None:
        if channel not in self._refused:
            self._refused.add(channel)
            _log.warning(
                "STORE_URL: its user may not use the channel %s, on which replicas tell each other what they need",
                channel.decode(),
                extra={"event": "store-channel-refused", "fields": {"channel": channel.decode()}},
            )


async def _answer(connection: Connection) -> Any:
    """Return the next message, which is to come at once. Raises TimeoutError."""
    message = await connection.read_response(timeout=TIMEOUT, disconnect_on_error=False)
    if message is None:
        raise TimeoutError("the server does not answer")
    return message
