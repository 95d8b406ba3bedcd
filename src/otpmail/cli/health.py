"""`otpmail health`: asks a service by grpc.health.v1 whether it serves. Container health checks run it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from rich.markup import escape

from otpmail.cli.call import call
from otpmail.cli.options import Json, Server
from otpmail.cli.output import exit_unless, out, print_json

if TYPE_CHECKING:
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

_TIMEOUT_SECONDS = 5.0
_PROBLEM = "otpmail-problem"  # as in `rpc.health`, which takes its time to import


def health(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="A gRPC service's full name, or liveness. Default: all services.")
    ] = "",
    *,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Ask a running service whether it serves, and if not, why."""
    from grpc_health.v1 import health_pb2

    asking = _Asking()
    answer = call(server, asking.of, health_pb2.HealthCheckRequest(service=service), _TIMEOUT_SECONDS)
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    if as_json:
        print_json(answer, **{"problem": asking.problem} if asking.problem else {})
    else:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        words = ": ".join(filter(None, (name, asking.problem)))
        out.print(escape(words), style="green" if serving else "red")
    exit_unless(serving)


class _Asking:
    """Calls Check, and keeps the `problem` that comes behind the answer."""

    def __init__(self) -> None:
        self.problem = ""

    def of(self, channel: grpc.Channel) -> "Callable[..., HealthCheckResponse]":
        """Return the method to call."""
        from grpc_health.v1 import health_pb2_grpc

        self._stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs list no methods
        return self._ask

    def _ask(self, request: "HealthCheckRequest", timeout: float) -> "HealthCheckResponse":
        answer: HealthCheckResponse
        answer, made = self._stub.Check.with_call(request, timeout=timeout)
        self.problem = next((str(value) for key, value in made.trailing_metadata() or () if key == _PROBLEM), "")
        return answer
