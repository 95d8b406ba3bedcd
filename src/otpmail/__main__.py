"""`python -m otpmail` and the `otpmail` command."""

import os

# gRPC's core writes lines of its own to standard error, beside ours, about what it also raises. Read at its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def main() -> None:
    """Run the command line."""
    from otpmail.cli import app

    app()


if __name__ == "__main__":
    main()
