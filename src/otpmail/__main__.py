"""`python -m otpmail` and the `otpmail` command."""

import logging
import os
import signal
import sys
from typing import NoReturn

from otpmail import standard_streams
from otpmail.collector import pausing_the_collector
from otpmail.extras import install_command

# gRPC's core writes lines of its own to standard error, beside ours, about what it also raises. Read at its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


_EXIT_USAGE = 2  # as in `cli.output`, which takes its time to import


def main() -> None:
    """Run the command line."""
    output = standard_streams.set_up()
    if os.getpid() == 1:  # in a container, where the kernel drops signals that have no handler
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    if sys.argv[1:2] == ["serve"] and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        _outlive_hangup()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:  # Ctrl-C during the imports would print where they were
        signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
    try:
        with pausing_the_collector():
            from otpmail.cli import app

        signal.signal(signal.SIGINT, interrupt)
        app()
    except SystemExit as end:
        sys.stdout.flush()
        _end(output.exit_code(end.code if isinstance(end.code, int) else 0))
    except KeyboardInterrupt:  # while typer makes its commands, for a tenth of a second
        _end(128 + signal.SIGINT)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "otpmail":
            raise
        print(f"otpmail: {error.name} is missing; {install_command('server')} installs it", file=sys.stderr)  # noqa: T201
        _end(_EXIT_USAGE)
    except UnicodeEncodeError:  # output never raises it, so it is an argument that a request should hold
        print("an argument is not text in UTF-8", file=sys.stderr)  # noqa: T201  no markup
        _end(_EXIT_USAGE)


def _end(code: int) -> NoReturn:
    """End the process at once, with all that was printed and logged.

    Python would take its modules apart first, while threads go on that nobody waits for. They are gRPC's, and one that
    reads files for a reload or waits for a resolver. Half of all processes crashed (SIGSEGV) as a reload met a stop.
    """
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _outlive_hangup() -> None:
    """Ignore SIGHUP while the parts are imported, for tenths of a second, unless the terminal has gone."""
    had_terminal = os.isatty(0)

    def on_hangup(number: int, _: object) -> None:
        """End the process if its terminal has gone."""
        if had_terminal and not os.isatty(0):
            os._exit(128 + number)

    signal.signal(signal.SIGHUP, on_hangup)


if __name__ == "__main__":
    main()
