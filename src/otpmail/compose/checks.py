"""What a template of codes must have before any mail is made of it: a subject that can be sent, and the code."""

import re
from collections.abc import Collection

from otpmail.compose.fields import NOT_IN_A_VALUE
from otpmail.compose.folders import JinjaFiles

_MOST_SUBJECT = 900
"""Characters of a subject, so that values find room in the 998 of a draft."""

_MARKS = re.compile("[\x1e\x1f]")
_NOT_IN_A_BODY = re.compile("[\0\ud800-\udfff]")
_NOT_SHOWN = re.compile(r"<!--.*?-->|<(head|style|script|title|template)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)


def check_parts(files: JinjaFiles, parts: tuple[str, str, str], codes: Collection[str]) -> None:
    """Check the subject, text and HTML of a sample. One of `codes` must be in text and HTML.

    Raises ValueError, which names the file.
    """
    subject, text, html = parts
    check_subject(files.subject, subject)
    for path, body in ((files.text, text), (files.html, html)):
        if path:
            check_body(f"{path}:1", body, codes, "{{ code }}")


def check_subject(path: str, subject: str) -> None:
    """Raise ValueError for a subject with which each mail would be refused, or that says nothing."""
    line = _MARKS.sub("", one_line(subject, path))
    if not line:
        raise ValueError(f"{path}: is empty")
    if len(line) > _MOST_SUBJECT:
        raise ValueError(f"{path}: is longer than {_MOST_SUBJECT} characters")
    if NOT_IN_A_VALUE.search(line):
        raise ValueError(f"{path}: has a character that no subject can have, such as a line separator")


def check_body(place: str, body: str, codes: Collection[str], name: str) -> None:
    """Raise ValueError for a body that can't be sent, or in which nobody sees the code, which is written as `name`."""
    if _NOT_IN_A_BODY.search(body):
        raise ValueError(f"{place}: has a NUL, which no mail can have")
    shown = _NOT_SHOWN.sub("", body)
    if not any(code in shown for code in codes):
        raise ValueError(f"{place}: has no {name}")


def one_line(subject: str, path: str) -> str:
    """Return a subject without blanks around it. Raises ValueError for more than one line."""
    subject = subject.strip()
    if "\n" in subject:
        raise ValueError(f"{path}: has more than one line")
    return subject
