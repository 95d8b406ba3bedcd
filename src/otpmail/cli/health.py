"""`otpmail health`: asks a service by grpc.health.v1 whether it serves. Container health checks run it."""

from collections.abc import Callable
from typing import Annotated, Any

import grpc
import typer

from otpmail.cli.call import call
from otpmail.cli.options import Json, Server
from otpmail.cli.output import exit_unless, out, print_json

_TIMEOUT_SECONDS = 5.0


def health(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="A gRPC service's full name, or liveness. Default: all services.")
    ] = "",
    *,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Ask a running service whether it serves."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    def check(channel: grpc.Channel) -> Callable[..., health_pb2.HealthCheckResponse]:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs list no methods
        method: Callable[..., health_pb2.HealthCheckResponse] = stub.Check
        return method

    answer = call(server, check, health_pb2.HealthCheckRequest(service=service), _TIMEOUT_SECONDS)
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    if as_json:
        print_json(answer)
    else:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        out.print(name, style="green" if serving else "red")
    exit_unless(serving)
