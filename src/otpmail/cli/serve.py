"""`otpmail serve`: runs the service."""

from otpmail.cli.running import load_settings, run, run_service


def serve() -> None:
    """Run the service, with settings from the environment, .env or SECRETS_DIR."""
    run(run_service(load_settings()))
