"""Which form of a noun follows a whole number in a language, by the categories of CLDR (Unicode TR 35, part 3)."""

from collections.abc import Callable

Rule = Callable[[int], str]

ONE, TWO, FEW, MANY, OTHER, ZERO = "one", "two", "few", "many", "other", "zero"


CATEGORIES = (ZERO, ONE, TWO, FEW, MANY, OTHER)


def _one(number: int) -> str:
    return ONE if number == 1 else OTHER


def _none_or_one(number: int) -> str:
    return ONE if number <= 1 else OTHER


def _never(_: int) -> str:
    return OTHER


def _polish(number: int) -> str:
    if number == 1:
        return ONE
    return FEW if number % 10 in {2, 3, 4} and number % 100 not in {12, 13, 14} else MANY


def _hebrew(number: int) -> str:
    return {1: ONE, 2: TWO}.get(number, OTHER)


def _arabic(number: int) -> str:
    if number <= 2:
        return (ZERO, ONE, TWO)[number]
    rest = number % 100
    return FEW if 3 <= rest <= 10 else MANY if rest >= 11 else OTHER


_RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    **dict.fromkeys(("zh", "ja", "ko", "th", "id", "ms"), (_never, (OTHER,))),
    **dict.fromkeys(("fr", "pt", "vi"), (_none_or_one, (ONE, OTHER))),
    "pl": (_polish, (ONE, FEW, MANY)),
    **dict.fromkeys(("he", "iw"), (_hebrew, (ONE, TWO, OTHER))),
    "ar": (_arabic, (ZERO, ONE, TWO, FEW, MANY, OTHER)),
}
_USUAL = (_one, (ONE, OTHER))


def rule_of(language: str) -> tuple[Rule, tuple[str, ...]]:
    """Return the rule of a language for whole numbers up to a million, and the categories that it needs.

    One without a rule here has that of English.
    """
    return _RULES.get(language, _USUAL)
