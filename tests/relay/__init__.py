"""An SMTP relay for tests that catches mail and misbehaves on request.

It is our own, because a test has to choose the byte at which a relay goes wrong, and aiosmtpd does not offer that.
`Faults` lists the faults; in everything else the relay follows RFC 5321 and its extensions. It delivers nothing. Tests
wait for events (`wait_for_mails`), not for time to pass.
"""

from relay.certificates import HOST, Certificates
from relay.faults import CaughtMail, Command, Faults, Security
from relay.server import Relay

__all__ = ["HOST", "CaughtMail", "Certificates", "Command", "Faults", "Relay", "Security"]
