"""The same calls over gRPC and over HTTP, in protobuf, to one service, by turns: what each door costs."""

from itertools import product
from pathlib import Path
from statistics import median

import pytest
from google.protobuf.message import Message

from benchmarks.load.callers import NO_H2LOAD, has_h2load
from benchmarks.load.doors import Door, take
from benchmarks.peers.servers import Certificates, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from otpmail.v1 import mail_pb2, otp_pb2

_CALLS: dict[str, Message] = {
    "/otpmail.v1.OtpService/ValidateCode": otp_pb2.ValidateCodeRequest(email="ada@example.org", code="123456"),
    "/otpmail.v1.MailService/SendMail": mail_pb2.SendMailRequest(
        to=["ada@example.org"], subject="Good morning", text="Hi Ada,\nthe first train leaves at nine.\n" * 20
    ),
}
_VALIDATE, _SEND = _CALLS
_MARGIN = 2.0  # of a quick run


async def test_doors(certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool) -> None:
    """A call over HTTP costs half of one over gRPC, and less still where it is short."""
    if not has_h2load():
        pytest.skip(NO_H2LOAD)
    # One start of the service differs from the next by some percent, as its memory lies: so there are several.
    starts, rounds, calls = (1, 2, 2000) if quick else (8, 2, 8000)
    turns: dict[tuple[str, str], list[dict[str, float]]] = {}
    async with relay(certificates) as at:
        for _ in range(starts):
            async with service(at, HTTP_PORT=0) as server:
                doors = Door.grpc(server.address), Door.http(server.http)
                for number in range(1 + rounds):
                    for (path, message), door in product(_CALLS.items(), doors):
                        size = calls if number else calls // 4
                        figures = await take(server.process, door, path, message, calls=size, directory=tmp_path)
                        if number:  # the first round warms up
                            turns.setdefault((path, door.name), []).append(figures)
        await at.stop()
    assert at.counts["mails"] == starts * len(doors) * (calls // 4 + rounds * calls)  # h2load reads no answers

    def part(path: str, figure: str) -> float:
        """A figure over HTTP as a part of that over gRPC, turn by turn, since a disturbance meets neighbours alike."""
        pairs = zip(turns[path, "HTTP"], turns[path, "gRPC"], strict=True)
        return median(one[figure] / other[figure] for one, other in pairs)

    results.report(
        [
            {
                "method": path.rpartition("/")[2],
                "door": name,
                "calls/s": median(one["rate"] for one in figures),
                "server us/call": median(one["us"] for one in figures),
                "rate, of gRPC": part(path, "rate") if name == "HTTP" else 1.0,
                "CPU, of gRPC": part(path, "us") if name == "HTTP" else 1.0,
            }
            for (path, name), figures in turns.items()
        ],
        Promise(what="ValidateCode, rate by gRPC's", figure=part(_VALIDATE, "rate"), at_least=2.0, timed=True),
        Promise(what="ValidateCode, CPU by gRPC's", figure=part(_VALIDATE, "us"), at_most=0.5, margin=_MARGIN),
        Promise(what="SendMail, CPU by gRPC's", figure=part(_SEND, "us"), at_most=0.6, margin=_MARGIN),
    )
