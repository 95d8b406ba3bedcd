"""Divides the limits among the processes of one service, so that all of them together keep what the settings say."""

from collections.abc import Iterator
from dataclasses import replace

from otpmail.settings.loader import Settings
from otpmail.settings.relay import RelaySettings
from otpmail.values import frozen


@frozen()
class Portion:
    """Which of the `count` processes of a service this is; the first has the number 1."""

    number: int = 1
    count: int = 1

    def of(self, total: int) -> int:
        """Return this process's part of a total; the parts of all processes sum up to it."""
        return total // self.count + (self.number <= total % self.count)

    def of_settings(self, settings: Settings) -> Settings:
        """Return the settings of this process: its part of each limit, and all else unchanged."""
        if self.count == 1:
            return settings
        mail = settings.mail
        parts = {
            "workers": self.of(mail.workers),
            "queue_size": self.of(mail.queue_size),
            "memory_max_mb": (mail.memory_octets >> 20) // self.count,
        }
        return replace(
            settings,
            server=settings.server.model_copy(update={"max_connections": self.of(settings.server.max_connections)}),
            mail=mail.model_copy(update=parts),
            relays=tuple(self._of_relay(relay) for relay in settings.relays),
        )

    def _of_relay(self, relay: RelaySettings) -> RelaySettings:
        """Divide the rate. A process with no standby would let its next mail wait for a dial, so each keeps one."""
        rate = None if relay.rate is None else relay.rate / self.count
        standby = max(1, self.of(relay.standby)) if relay.standby else 0
        return relay.model_copy(update={"rate": rate, "standby": standby})


WHOLE = Portion()
"""The portion of a process that is the whole service."""


def portions(count: int) -> Iterator[Portion]:
    """Yield the portion of each of so many processes."""
    for number in range(1, count + 1):
        yield Portion(number, count)
