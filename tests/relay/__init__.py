"""An SMTP relay for tests that catches mail and misbehaves on request.

It is ours, not aiosmtpd, because a test must be able to say at which byte a relay goes wrong: `Faults` names every way
it can, and everything else it does is what RFC 5321 and its extensions ask for. It delivers nothing, and a test waits
for what happened (`wait_for_mails`), never for time to pass.
"""

from relay.certificates import HOST, Certificates
from relay.faults import CaughtMail, Command, Faults, Security
from relay.server import Relay

__all__ = ["HOST", "CaughtMail", "Certificates", "Command", "Faults", "Relay", "Security"]
