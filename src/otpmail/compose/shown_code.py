"""How a mail shows a code: letters in groups of four with dashes, which the check ignores. Pure."""

from itertools import pairwise

SPELLED = "spelled code"
"""The key of `spelled_code`, which no variable of a request has."""

BARE = "bare code"
"""The key of the code without dashes, for programs."""

_GROUP = 4


def code_values(code: str) -> dict[str, str]:
    """Return the values of a code for a template: for eyes, for programs and for screen readers.

    A number stays whole: people know such codes, and phones find it in a mail. A screen reader pauses at a comma.
    """
    if not code or code.isdecimal():
        return {"code": code, BARE: code, SPELLED: " ".join(code)}
    groups = _groups(code)
    return {"code": "-".join(groups), BARE: code, SPELLED: ", ".join([" ".join(group) for group in groups])}


def _groups(code: str) -> list[str]:
    """Cut a code into as few groups of four characters at most as there can be, the longer ones first."""
    count = -(-len(code) // _GROUP)
    size, longer = divmod(len(code), count)
    ends = [size * number + min(number, longer) for number in range(count + 1)]
    return [code[start:end] for start, end in pairwise(ends)]
