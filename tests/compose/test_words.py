"""The shipped words, as a proofreader reads them."""

import re
import tomllib
from collections.abc import Iterator, Mapping

import pytest

from otpmail.compose.catalog import SHIPPED

WORDS = {
    entry.name.removesuffix(".toml"): tomllib.loads(entry.read_text("utf-8"))
    for entry in SHIPPED.iterdir()
    if entry.name.endswith(".toml")
}

WRONG = {
    "fr": r"[^\u00a0][?!:;»]|«[^\u00a0]",
    "es": r"^[^¿]*\?|^[^¡]*!",
    "he": r"דוא\"ל",
    "ar": r"[,;?]",
    "de": r"\b[Dd]iese Mail\b|\b(ihr|ihre|ihnen)\b",
    "en": r"\bmail\b",
    **dict.fromkeys(("zh", "zh-hant", "ja"), r"[.,:;?!](?![\w@])"),
    "ko": r"[。，、：？！]",
}
"""What no proofreader of a language would let pass; signs in holes and codes are not looked at."""


def _phrases(table: Mapping[str, object]) -> Iterator[str]:
    for value in table.values():
        if isinstance(value, dict):
            yield from _phrases(value)
        elif isinstance(value, str):
            yield value


@pytest.mark.parametrize("tag", sorted(WORDS))
def test_the_signs_of_a_language(tag: str) -> None:
    """Each language has its own signs and spaces, and says email where its readers do."""
    wrong = re.compile(rf"['\"]|\.\.\.|  {f'|{WRONG[tag]}' if tag in WRONG else ''}")
    for phrase in _phrases(WORDS[tag]):
        assert not wrong.search(phrase), phrase


@pytest.mark.parametrize("tag", sorted(WORDS))
def test_sentences_end(tag: str) -> None:
    """Each sentence ends by a full stop of its script, and no subject or title does."""
    for name, phrase in _of_a_mail(WORDS[tag]):
        ends = phrase.endswith((".", "。"))
        assert ends == (name not in {"subject", "title", "direction"}), phrase


def _of_a_mail(table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict) and name not in {"hour", "minute", "second"}:
            yield from _of_a_mail(value)
