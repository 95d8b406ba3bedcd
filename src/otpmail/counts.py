"""Counts in words."""


def counted(count: int, noun: str) -> str:
    """Return the count with its noun, which has an s for all but one: `1 mail`, `2 mails`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def mails(count: int) -> str:
    """Return the count of mails: `1 mail`, `2 mails`."""
    return counted(count, "mail")


def describe_counts(*counts: tuple[int, str]) -> str:
    """Return the counts above 0, each with what became of so many mails: `2 mails sent, 1 failed`."""
    told = [(count, end) for count, end in counts if count > 0]
    return ", ".join(f"{count if place else mails(count)} {end}" for place, (count, end) in enumerate(told))
