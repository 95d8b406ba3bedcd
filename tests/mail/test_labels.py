"""Labels: which a caller may give to a mail."""

import pytest

from otpmail.errors import InvalidArgument
from otpmail.mail.labels import (
    MAX_LABEL_NAME,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_LABELS_OCTETS,
    checked_labels,
)


def test_labels_are_kept_by_name() -> None:
    """Labels are kept in the order of their names, and a value may be empty or in any script."""
    assert checked_labels({"tenant": "Bücher", "campaign": ""}) == (("campaign", ""), ("tenant", "Bücher"))


def test_the_largest_labels() -> None:
    """As many labels as may be, and as long as each may be, are good."""
    assert len(checked_labels({str(number): "" for number in range(MAX_LABELS)})) == MAX_LABELS
    assert checked_labels({"x" * MAX_LABEL_NAME: "😀" * MAX_LABEL_VALUE})
    most = MAX_LABELS_OCTETS // MAX_LABELS - 2
    assert checked_labels({f"{number:02}": "x" * most for number in range(MAX_LABELS)})


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({str(number): "" for number in range(MAX_LABELS + 1)}, "labels: there are more than 32"),
        ({"": "x"}, "labels['']: has no name"),
        ({"x" * 65: ""}, f"labels[{'x' * 64!r}]: has a name longer than 64 characters"),
        ({"x": "y" * 257}, "labels['x']: is longer than 256 characters"),
        ({"x\n": ""}, "labels['x\\n']: holds the control character U+000A"),
        ({"x": "\x1b"}, "labels['x']: holds the control character U+001B"),
        ({"x": "\u2028"}, "labels['x']: holds the control character U+2028"),
        ({f"{number:02}": "x" * 127 for number in range(MAX_LABELS)}, "labels: are longer than 4096 octets together"),
        ({str(number): "😀" * 256 for number in range(4)}, "labels: are longer than 4096 octets together"),
    ],
)
def test_what_can_not_be_a_label(labels: dict[str, str], said: str) -> None:
    """The error names the label, or says which bound all of them are beyond."""
    with pytest.raises(InvalidArgument) as caught:
        checked_labels(labels)
    assert str(caught.value) == said
