"""`python -m otpmail` and the `otpmail` command."""

from otpmail.cli import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
