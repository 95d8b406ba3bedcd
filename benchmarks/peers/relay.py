"""The relay that benchmarks send to: SMTP under TLS with AUTH PLAIN, at a distance that an argument sets.

It prints a line of JSON with its port, and on SIGTERM one with its counts.
"""

import argparse
import asyncio
import json
import signal
import ssl

import uvloop

from benchmarks.peers.relay_protocol import HIDEABLE, Conduct, Counts, RelayProtocol


async def serve(conduct: Conduct, certificate: str) -> Counts:
    """Print the port, and accept mail on it until SIGTERM."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    counts = Counts()
    server = await loop.create_server(lambda: RelayProtocol(conduct, counts), "127.0.0.1", 0, ssl=tls, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await stop.wait()
    server.close()
    return counts


def main() -> None:
    """Run the relay, and print its counts at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", required=True, help="PEM file with the key and the chain")
    parser.add_argument("--rtt", type=float, default=0, help="the round trip, in milliseconds")
    parser.add_argument("--accept", type=float, default=0, help="how long a mail takes to be accepted, in milliseconds")
    parser.add_argument("--hide", action="append", default=[], choices=HIDEABLE)
    parser.add_argument("--distinct", action="store_true", help="count distinct Message-IDs")
    parser.add_argument("--refuse-every", type=int, default=0, help="refuse each such mail of all; 0 refuses none")
    parser.add_argument("--close-every", type=int, default=0, help="say 421 after each such mail of all")
    parser.add_argument("--close-after", type=int, default=0, help="say 421 to a MAIL after so many on one connection")
    given = parser.parse_args()
    conduct = Conduct(
        round_trip=given.rtt / 1000,
        accept=given.accept / 1000,
        hidden=frozenset(given.hide),
        distinct=given.distinct,
        refuse_every=given.refuse_every,
        close_every=given.close_every,
        close_after=given.close_after,
    )
    counts = uvloop.run(serve(conduct, given.certificate))
    print(json.dumps(counts.summary()), flush=True)


if __name__ == "__main__":
    main()
