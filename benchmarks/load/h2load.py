"""Calls of `SendMail` by h2load: a client in C, which leaves the processors to the server.

h2load (Debian's package nghttp2-client) sends one framed request again and again, on HTTP/2 without TLS. It does not
read grpc-status. So this program counts the octets of messages, which an error does not carry, and the benchmark counts
the mails at the relay.

With `--wait-for-queue` it calls `otpmail.v1.MailService/SendMail` with WAIT_FOR_QUEUE, otherwise the original's
`mail.MailService/SendMail`.
"""

import argparse
import json
import re
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from statistics import quantiles
from typing import Self

from benchmarks.load.sample_mail import SUBJECT, recipient, text, text_of
from otpmail.original import mail_pb2
from otpmail.v1 import mail_pb2 as v1_mail_pb2

PATH = "/mail.MailService/SendMail"
_V1_PATH = "/otpmail.v1.MailService/SendMail"
_HEADERS = ("content-type: application/grpc", "te: trailers")
CONNECTIONS = 2
_PREFIX_OCTETS = 5  # of each message: a flag, and the length in four
_DATA = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Run:
    """One run of h2load: when each call began and how long it took, in microseconds."""

    calls: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, log: str, output: str) -> Self:
        """Read the log file and the output of a run. Raises RuntimeError when a call was not answered by a message."""
        rows = [tuple(map(int, line.split("\t"))) for line in log.splitlines()]
        data = _DATA.search(output)
        if data is None or any(status != 200 for _, status, _ in rows) or int(data[1]) < _PREFIX_OCTETS * len(rows):
            raise RuntimeError(f"h2load: calls were not answered, or with an error\n{output}")
        return cls(tuple((began, took) for began, _, took in rows))

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.calls) / (self.seconds or 1e-6)

    @property
    def seconds(self) -> float:
        """From the start of the first call to the last answer."""
        return (max(began + took for began, took in self.calls) - min(began for began, _ in self.calls)) / 1e6


def framed_request() -> bytes:
    """One request as it stands in a DATA frame: the prefix of gRPC over HTTP/2, and the message."""
    return _framed(mail_pb2.SendEmailRequest(to=recipient(0), subject=SUBJECT, body=text(0)).SerializeToString())


def framed_guaranteed(octets: int) -> bytes:
    """One request with WAIT_FOR_QUEUE, for a mail of about so many octets."""
    request = v1_mail_pb2.SendMailRequest(
        to=[recipient(0)], subject=SUBJECT, text=text_of(octets), wait_for=v1_mail_pb2.WAIT_FOR_QUEUE
    )
    return _framed(request.SerializeToString())


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def call(
    address: str,
    framed: bytes,
    *,
    path: str = PATH,
    calls: int = 0,
    seconds: int = 0,
    callers: int,
    connections: int = CONNECTIONS,
    directory: Path,
    token: str = "",
) -> Run:
    """Make so many calls, or for so many seconds, so many of them in flight at a time.

    Calls are shared out evenly among the connections. By the time a connection makes as many as it can. Raises
    RuntimeError when a call fails.
    """
    request, log = directory / "request", directory / "log"
    request.write_bytes(framed)
    log.unlink(missing_ok=True)  # h2load appends
    clients = min(connections, callers)
    authorization = (f"authorization: Bearer {token}",) if token else ()
    headers = [argument for header in (*_HEADERS, *authorization) for argument in ("-H", header)]
    done = subprocess.run(  # noqa: S603  our own arguments
        [  # noqa: S607  from PATH
            "h2load",
            *(("-D", str(seconds)) if seconds else ("-n", str(calls))),
            *("-c", str(clients), "-m", str(callers // clients)),
            *headers,
            *("-d", str(request), f"--log-file={log}", f"http://{address}{path}"),
        ],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode or not log.exists():
        raise RuntimeError(f"h2load ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return Run.parse(log.read_text(encoding="ascii"), done.stdout)


def measure(
    address: str,
    callers: int,
    warm: float,
    seconds: float,
    *,
    connections: int,
    guaranteed: bool,
    octets: int,
    token: str = "",
) -> dict[str, float]:
    """Call for about `warm` seconds, then for about `seconds`, and return the figures of the latter."""
    began = time.monotonic()
    framed, path = (framed_guaranteed(octets), _V1_PATH) if guaranteed else (framed_request(), PATH)
    with tempfile.TemporaryDirectory(prefix="otpmail-benchmark-") as name:
        directory = Path(name)
        make = partial(
            call,
            address,
            framed,
            path=path,
            callers=callers,
            connections=connections,
            directory=directory,
            token=token,
        )
        first = make(calls=callers)
        warming = make(calls=max(callers, round(first.rate * warm)))
        by_time = connections != CONNECTIONS  # which may be served by different processes, some faster than others
        calls = max(callers, round(warming.rate * seconds))
        measured = make(seconds=ceil(seconds)) if by_time else make(calls=calls)
    percentiles = quantiles((took / 1000 for _, took in measured.calls), n=100)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    return {
        "calls": sum(len(run.calls) for run in (first, warming, measured)),
        "rate": measured.rate,
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "cpu": cpu,
        "cores": cpu / (time.monotonic() - began),
    }


def main() -> None:
    """Call, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--callers", type=int, default=64, help="calls in flight")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--warm", type=float, default=1, help="seconds")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--wait-for-queue", action="store_true")
    parser.add_argument("--octets", type=int, default=1000, help="of a mail that waits for the queue")
    parser.add_argument("--token", default="", help="of a caller")
    given = parser.parse_args()
    figures = measure(
        given.address,
        given.callers,
        given.warm,
        given.seconds,
        connections=given.connections,
        guaranteed=given.wait_for_queue,
        octets=given.octets,
        token=given.token,
    )
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
