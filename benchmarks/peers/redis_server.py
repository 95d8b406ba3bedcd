"""Becomes a server of Redis on a free port of 127.0.0.1, set up as a store: with AOF, without eviction.

It prints its port first, and is the server's process from then on, so that its processor time is the server's.
"""

import argparse
import json
import os
import shutil
import socket

_PROGRAM = "redis-server"


def find_server() -> str | None:
    """Return the program, None where it is not installed."""
    return shutil.which(_PROGRAM)


def main() -> None:
    """Print the port and become the server."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    program = find_server()
    if program is None:
        raise SystemExit(f"{_PROGRAM} is not installed")
    # The program inherits a socket that never listens, so that nobody gets the port before it does: both sockets set
    # SO_REUSEADDR, and then one of them may listen (socket(7)).
    holder = socket.socket()
    holder.set_inheritable(True)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    print(json.dumps({"port": port}), flush=True)
    options = {"port": port, "bind": "127.0.0.1", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    options |= {"maxmemory": "1gb", "maxmemory-policy": "noeviction", "loglevel": "warning"}
    os.execv(program, [program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))])  # noqa: S606


if __name__ == "__main__":
    main()
