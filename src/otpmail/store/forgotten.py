"""Persons whom callers want forgotten: the mails that are open then settle without them."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from otpmail.model import Mail
from otpmail.store.erasing import person_of, without


class Span(NamedTuple):
    """Since when a person is to be forgotten, and until when mails may be open that were so then."""

    since: float
    until: float


class Forgotten:
    """The persons by their names in the store, of which each has several: `names` returns them, the present one first.

    Mails that were accepted up to `latest` may have one of them: a plain number, which a hot path reads.
    """

    def __init__(self, names: Callable[[bytes], Sequence[bytes]] = lambda person: (person,)) -> None:
        self._names = names
        self._spans: dict[bytes, Span] = {}
        self.latest = -inf

    def __repr__(self) -> str:
        return f"<Forgotten {len(self._spans)} persons>"

    def add(self, person: bytes, span: Span) -> bytes:
        """Forget a person, and those whose mails have all settled; returns the name to keep in the store."""
        name = self._names(person)[0]
        spans = {known: one for known, one in self._spans.items() if one.until > span.since}
        self.replace(spans | {name: span})
        return name

    def replace(self, spans: Mapping[bytes, Span], *, keep: float = inf) -> None:
        """Forget these persons, by their names, and no others, but for those since `keep`."""
        self._spans = {name: one for name, one in self._spans.items() if one.since >= keep} | dict(spans)
        self.latest = max([one.since for one in self._spans.values()], default=-inf)

    def left_of(self, mail: Mail) -> Mail | None:
        """Return a mail without the persons who are to be forgotten, None where it has none of them."""

        def is_gone(address: str) -> bool:
            """Whether an address is to be forgotten in a mail of that time."""
            for name in self._names(person_of(mail.caller, address)):
                if name in self._spans and mail.create_time <= self._spans[name].since:
                    return True
            return False

        return without(mail, is_gone) if self._spans else None
