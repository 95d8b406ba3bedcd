"""The part of a mail that is in memory while the mail waits in the store (`delivery.backlog`)."""

from otpmail.model import Priority

WAITING_OCTETS = 512
"""Octets that count for a mail that waits in the store: what stands here, in `Places` and in the store's own index."""


class Waiting:
    """One mail that waits in the store; the order is that of the deadlines."""

    __slots__ = ("deadline", "id", "priority", "source")

    def __init__(self, mail_id: str, priority: Priority, deadline: float, source: str) -> None:
        self.id = mail_id
        self.priority = priority
        self.deadline = deadline
        self.source = source

    def __repr__(self) -> str:
        return f"<Waiting {self.id} {self.priority.name}>"

    def __lt__(self, other: "Waiting") -> bool:
        return self.deadline < other.deadline
