"""Which languages stand in for that of a reader, by the lookup of BCP 47 (RFC 4647, 3.4)."""

import re
from collections.abc import Iterator

TAG = re.compile(r"[A-Za-z0-9]{1,8}(?:[-_][A-Za-z0-9]{1,8}){0,7}")
"""A language tag, as a call may have it."""

# Lookup only shortens a tag, which would make Traditional Chinese Simplified. Hebrew has an old tag.
_ALIASES = {"zh-tw": "zh-hant", "zh-hk": "zh-hant", "zh-mo": "zh-hant", "iw": "he", "he": "iw"}


def tag_of(locale: str) -> str:
    """Return a language tag in one spelling: pt_BR and pt-br are the same."""
    return locale.lower().replace("_", "-")


def fallbacks(tag: str) -> Iterator[str]:
    """Yield a tag of one spelling, and those that stand in for it, the nearest first."""
    while tag:
        yield tag
        if (alias := _ALIASES.get(tag)) is not None:
            yield alias
        tag = tag.rpartition("-")[0]
