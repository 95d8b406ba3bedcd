"""A service for the tests of other programs, with an inbox in place of a relay: `Service`, and the fixture `otpmail`.

This package is for the tests' process, and imports nothing of the service, which runs in a process of its own
(`otpmail.testing.child`). It needs the packages of `otpmail[server]` there.
"""

from otpmail.dev.caught import CaughtMail
from otpmail.testing.given import Setting
from otpmail.testing.inbox import Inbox, NoMailError
from otpmail.testing.service import Clock, Namespace, Service, ServiceFailedError

__all__ = ["CaughtMail", "Clock", "Inbox", "Namespace", "NoMailError", "Service", "ServiceFailedError", "Setting"]
