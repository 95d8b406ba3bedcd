"""Labels: a caller's own notes on a mail. Results have them; the mail that is sent does not."""

from collections.abc import Mapping
from itertools import islice

from otpmail.address import refuse_control_characters
from otpmail.errors import InvalidArgument
from otpmail.model import Labels

MAX_LABELS = 32
MAX_LABEL_NAME = 64
MAX_LABEL_VALUE = 256
MAX_LABELS_OCTETS = 4096
"""Octets of all labels of a mail, so that a hundred results with labels still fit into one response."""


def checked_labels(labels: Mapping[str, str]) -> Labels:
    """Return labels in a form that is kept, by name. Raises InvalidArgument, which names the first that is not good."""
    # A map is read to one entry beyond its limit, which then refuses it.
    pairs = tuple(sorted(islice(labels.items(), MAX_LABELS + 1)))
    if len(pairs) > MAX_LABELS:
        raise InvalidArgument("labels", f"there are more than {MAX_LABELS}")
    for name, value in pairs:
        where = f"labels[{name[:MAX_LABEL_NAME]!r}]"
        if not name:
            raise InvalidArgument(where, "has no name")
        if len(name) > MAX_LABEL_NAME:
            raise InvalidArgument(where, f"has a name longer than {MAX_LABEL_NAME} characters")
        if len(value) > MAX_LABEL_VALUE:
            raise InvalidArgument(where, f"is longer than {MAX_LABEL_VALUE} characters")
        refuse_control_characters(name, where)
        refuse_control_characters(value, where)
    if sum([len(text.encode()) for pair in pairs for text in pair]) > MAX_LABELS_OCTETS:
        raise InvalidArgument("labels", f"are longer than {MAX_LABELS_OCTETS} octets together")
    return pairs
