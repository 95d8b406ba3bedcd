"""Counts in words."""


def mails(count: int) -> str:
    """Return the count with its noun: `1 mail`, `2 mails`."""
    return f"{count} mail" if count == 1 else f"{count} mails"
