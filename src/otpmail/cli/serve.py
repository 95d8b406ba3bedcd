"""`otpmail serve`: runs the service."""

from otpmail.cli.running import load_settings, run, run_service
from otpmail.cli.signals import Signals


def serve() -> None:
    """Run the service, with settings from the environment, .env or SECRETS_DIR."""
    signals = Signals(hangup_stops=False)
    run(run_service(load_settings(), signals))
