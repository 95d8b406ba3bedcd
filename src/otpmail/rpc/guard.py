"""The edge: every error a handler raises leaves as a status, and no exception's text reaches a client.

It also counts the running calls, for a stop that waits for them and refuses new ones, and lets unary calls begin in
batches under load (`rpc.batching`). Methods are wrapped when they are added: gRPC would ask an interceptor anew at each
call.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc

from otpmail.errors import Unavailable
from otpmail.rpc.batching import Batching
from otpmail.rpc.status import status_for

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:  # generic for the type checker alone
    Handler = grpc.RpcMethodHandler


class Guard:
    """Stands where a server is expected when methods are added, and adds each to that server wrapped.

    Health and reflection are added to the server itself: they map errors of their own and must answer while the service
    stops. Build it inside a running loop.
    """

    def __init__(self, server: grpc.aio.Server, batching: Batching) -> None:
        self._server = server
        self._running = 0
        self._stopping = False
        self._batching = batching
        self._unary = 0  # of those that are running
        self.idle = asyncio.Event()
        self.idle.set()

    def __repr__(self) -> str:
        return f"<Edge {self._running} calls running{', stopping' if self._stopping else ''}>"

    def refuse_calls(self) -> None:
        """From now on answer each new call with UNAVAILABLE, which clients take as a word to go elsewhere."""
        self._stopping = True

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """For generated code, which adds the same methods by `add_registered_method_handlers` too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the service's methods, with errors mapped to statuses. Before the server is started."""
        wrapped = {name: self._wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            guarded = self._guard_call(method, handler.unary_unary, in_turn=True)
            return grpc.unary_unary_rpc_method_handler(guarded, *codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._guard_stream(method, handler.unary_stream), *codecs)
        if handler.stream_stream is not None:  # ours read and write by their context, and return nothing
            guarded = self._guard_call(method, handler.stream_stream, in_turn=False)
            return grpc.stream_stream_rpc_method_handler(guarded, *codecs)
        return handler

    def _guard_call(self, method: str, behaviour: Callable[..., Any], *, in_turn: bool) -> Callable[..., Any]:
        async def guarded(request: Any, context: Any) -> Any:
            self._begin()
            self._unary += in_turn
            try:
                self._refuse_if_stopping()
                if in_turn and (turn := self._batching.take(self._unary)) is not None:
                    await turn
                return await behaviour(request, context)
            except grpc.aio.BaseError:  # AbortError, already on its way, or a read or a write of a call that is over
                raise
            except Exception as error:  # noqa: BLE001  whatever it is must not reach the client in its own words
                await status_for(method, error).abort(context)
            finally:
                self._unary -= in_turn
                self._end()

        return guarded

    def _guard_stream(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            self._begin()
            try:
                self._refuse_if_stopping()
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except grpc.aio.BaseError:  # AbortError, already on its way, or a read or a write of a call that is over
                raise
            except Exception as error:  # noqa: BLE001  as above
                await status_for(method, error).abort(context)
            finally:
                self._end()

        return guarded

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise Unavailable("the service is stopping")

    def _begin(self) -> None:
        self._running += 1
        self.idle.clear()

    def _end(self) -> None:
        self._running -= 1
        if self._running == 0:
            self.idle.set()
