"""`python -m otpmail` and the `otpmail` command."""

import os
import signal
import sys

# gRPC's core writes lines of its own to standard error, beside ours, about what it also raises. Read at its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def main() -> None:
    """Run the command line."""
    _open_standard_streams()
    if os.getpid() == 1:  # in a container, where the kernel drops signals that have no handler
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    if sys.argv[1:2] == ["serve"] and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        _outlive_hangup()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:  # Ctrl-C during the imports would print where they were
        signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
    from otpmail.cli import app

    signal.signal(signal.SIGINT, interrupt)
    app()


def _outlive_hangup() -> None:
    """Ignore SIGHUP while the parts are imported, for tenths of a second, unless the terminal has gone."""
    had_terminal = os.isatty(0)

    def on_hangup(number: int, _: object) -> None:
        if had_terminal and not os.isatty(0):
            os._exit(128 + number)

    signal.signal(signal.SIGHUP, on_hangup)


def _open_standard_streams() -> None:
    """Open the null device in place of a standard stream that is closed, as after `2>&-`.

    Otherwise the first socket would have the stream's number: libuv aborts over that, and the log would go to a relay.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Python has no object for a stream that was closed at its start.
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115  for the whole life of the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115  as above
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115  as above


if __name__ == "__main__":
    main()
