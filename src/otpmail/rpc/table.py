"""All methods of the port in one generic handler, those of our services in their guards.

To gRPC every method is one of streams, so that it parses and reads no request itself. No caller sees that.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc

from otpmail.api.auth import AUTHORIZATION, KEY, authorization_of
from otpmail.api.guard import Guard
from otpmail.callers import TRACE, TRACE_KEYS, Trace

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:  # the class is generic in the stubs alone
    Handler = grpc.RpcMethodHandler


class MethodTable(grpc.GenericRpcHandler):
    """Takes the place of a server when methods are added, and is that server's only handler.

    grpc.aio awaits the calls of each registered method in a task of its own, and each call costs a look at all these
    tasks. With sixteen methods that is a tenth of a small call; one generic handler has one task.

    With `asks_callers` it keeps what a call says of its caller until `api.auth` looks at it.
    """

    def __init__(self, *, asks_callers: bool = False) -> None:
        self._handlers: dict[str, Handler] = {}
        self._wanted = frozenset((*TRACE_KEYS, KEY) if asks_callers else TRACE_KEYS)

    def __repr__(self) -> str:
        return f"<MethodTable {len(self._handlers)} methods>"

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Ignore what generated code adds here: it adds the same methods by `add_registered_method_handlers` too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of a service."""
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of the method that a call names, None where there is no such method.

        It runs in the call's own task, which from then on knows the ids that the caller sent.
        """
        metadata = handler_call_details.invocation_metadata or ()
        authorization: list[str] = []
        is_traced = False
        for key, value in metadata:
            if key in self._wanted:
                if key == KEY:
                    authorization.append(str(value))
                else:
                    is_traced = True
        if is_traced:
            TRACE.set(Trace.read(metadata))
        if authorization:
            AUTHORIZATION.set(authorization_of(authorization))
        return self._handlers.get(handler_call_details.method)


class GuardedServer:
    """Takes the place of a server when methods are added, wraps each by `guard`, and adds it to the `methods`."""

    def __init__(self, methods: MethodTable, guard: Guard) -> None:
        self._methods = methods
        self._guard = guard

    def __repr__(self) -> str:
        return f"<GuardedServer {self._methods!r}>"

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Ignore these, as the method table does."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Wrap the methods of a service and add them."""
        wrapped = {name: self._wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._methods.add_registered_method_handlers(service, wrapped)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        serializer = handler.response_serializer
        if handler.unary_unary is not None:
            guarded = self._guard.guard_call(method, handler.unary_unary, unary=True)
            return grpc.stream_unary_rpc_method_handler(guarded, None, serializer)
        if handler.unary_stream is not None:
            watched = self._guard.guard_stream(method, handler.unary_stream)
            return grpc.stream_stream_rpc_method_handler(watched, None, serializer)
        if handler.stream_stream is not None:  # ours reads and writes by its context, and returns nothing
            guarded = self._guard.guard_call(method, handler.stream_stream, unary=False)
            return grpc.stream_stream_rpc_method_handler(guarded, None, serializer)
        return handler
