"""Checks a template of codes before any mail is made of it: its subject can be sent, and it shows the code."""

import re
from collections.abc import Collection

from otpmail.compose.fields import NOT_IN_A_VALUE
from otpmail.compose.folders import JinjaFiles

_MOST_SUBJECT = 900
"""Characters of a subject, so that values find room in the 998 of a draft."""

_MARKS = re.compile("[\x1e\x1f]")
_NOT_IN_A_BODY = re.compile("[\0\ud800-\udfff]")
_HIDING = ("style", "script", "title", "template")
_OPENS, _OPENS_IN_HEAD = (
    re.compile(rf"<(?:!(?P<comment>--)|(?P<tag>{'|'.join(tags)})(?=[\s/>]))", re.IGNORECASE)
    for tags in (("head", *_HIDING), _HIDING)
)
_CLOSES = {tag: re.compile(rf"</{tag}\s*>", re.IGNORECASE) for tag in ("head", *_HIDING)}
_COMMENT_CLOSES = re.compile("--!?>")


def check_parts(files: JinjaFiles, parts: tuple[str, str, str], codes: Collection[str]) -> None:
    """Check the subject, text and HTML of a sample. One of `codes` must be in text and HTML.

    Raises ValueError, which names the file.
    """
    subject, text, html = parts
    check_subject(files.subject, subject)
    for path, body, shown in ((files.text, text, text), (files.html, html, shown_in(html))):
        if path:
            check_body(f"{path}:1", body, shown, codes, "{{ code }}")


def check_subject(path: str, subject: str) -> None:
    """Raise ValueError for a subject with which each mail would be refused, or that says nothing."""
    line = _MARKS.sub("", one_line(subject, path))
    if not line:
        raise ValueError(f"{path}: is empty")
    if len(line) > _MOST_SUBJECT:
        raise ValueError(f"{path}: is longer than {_MOST_SUBJECT} characters")
    if NOT_IN_A_VALUE.search(line):
        raise ValueError(f"{path}: has a character that no subject can have, such as a line separator")


def check_body(place: str, body: str, shown: str, codes: Collection[str], name: str) -> None:
    """Raise ValueError for a body that can't be sent, or whose shown part lacks the code, written as `name`."""
    if _NOT_IN_A_BODY.search(body):
        raise ValueError(f"{place}: has a NUL, which no mail can have")
    if not any(code in shown for code in codes):
        raise ValueError(f"{place}: has no {name}")


def shown_in(html: str) -> str:
    """Return HTML without what no reader sees: comments, the head, styles, scripts and titles, in one pass.

    One of them that does not end hides the rest, as in a browser. A head alone may lack its end.
    """
    shown, start, opens = "", 0, _OPENS
    while (opened := opens.search(html, start)) is not None:
        tag = (opened["tag"] or "").lower()
        # A comment may end in its own opening, as `<!-->` does.
        closed = _CLOSES[tag].search(html, opened.end()) if tag else _COMMENT_CLOSES.search(html, opened.start() + 2)
        shown += html[start : opened.start()]
        if closed is not None:
            start = closed.end()
        elif tag == "head":
            start, opens = opened.end(), _OPENS_IN_HEAD
        else:
            return shown
    return shown + html[start:]


def one_line(subject: str, path: str) -> str:
    """Return a subject without blanks around it. Raises ValueError for more than one line."""
    subject = subject.strip()
    if "\n" in subject:
        raise ValueError(f"{path}: has more than one line")
    return subject
