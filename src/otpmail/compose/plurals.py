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


def _is_few(number: int) -> bool:
    """Whether a number ends in 2, 3 or 4, as Slavic languages say it."""
    return number % 10 in {2, 3, 4} and number % 100 not in {12, 13, 14}


def _ends_in_one(number: int) -> str:
    return ONE if number % 10 == 1 and number % 100 != 11 else OTHER


def _polish(number: int) -> str:
    if number == 1:
        return ONE
    return FEW if _is_few(number) else MANY


def _russian(number: int) -> str:
    if _is_few(number):
        return FEW
    return ONE if _ends_in_one(number) == ONE else MANY


def _serbian(number: int) -> str:
    return FEW if _is_few(number) else _ends_in_one(number)


def _czech(number: int) -> str:
    return FEW if number in {2, 3, 4} else _one(number)


def _slovenian(number: int) -> str:
    return {1: ONE, 2: TWO, 3: FEW, 4: FEW}.get(number % 100, OTHER)


def _lithuanian(number: int) -> str:
    if number % 10 == 0 or 11 <= number % 100 <= 19:
        return OTHER
    return ONE if number % 10 == 1 else FEW


def _latvian(number: int) -> str:
    if number % 10 == 0 or 11 <= number % 100 <= 19:
        return ZERO
    return ONE if number % 10 == 1 else OTHER


def _romanian(number: int) -> str:
    if number == 1:
        return ONE
    return FEW if number == 0 or 1 <= number % 100 <= 19 else OTHER


def _irish(number: int) -> str:
    if number <= 2:
        return (OTHER, ONE, TWO)[number]
    return FEW if number <= 6 else MANY if number <= 10 else OTHER


def _welsh(number: int) -> str:
    return {0: ZERO, 1: ONE, 2: TWO, 3: FEW, 6: MANY}.get(number, OTHER)


def _maltese(number: int) -> str:
    rest = number % 100
    if number in {1, 2}:
        return (ONE, TWO)[number - 1]
    if number == 0 or 3 <= rest <= 10:
        return FEW
    return MANY if 11 <= rest <= 19 else OTHER


def _filipino(number: int) -> str:
    return OTHER if number % 10 in {4, 6, 9} else ONE


def _hebrew(number: int) -> str:
    return {1: ONE, 2: TWO}.get(number, OTHER)


def _arabic(number: int) -> str:
    if number <= 2:
        return (ZERO, ONE, TWO)[number]
    rest = number % 100
    return FEW if 3 <= rest <= 10 else MANY if rest >= 11 else OTHER


_NEVER = ("zh", "ja", "ko", "th", "id", "ms", "yue", "my", "km", "lo", "jv", "su", "yo", "ig", "wo", "bo", "dz", "to")
_FROM_TWO_ON = (
    *("fr", "pt", "vi", "hy", "ln", "mg", "tg", "zu"),
    *("hi", "bn", "gu", "kn", "pa", "as", "si", "fa", "am", "ti"),
)

_RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    **dict.fromkeys(_NEVER, (_never, (OTHER,))),
    **dict.fromkeys(_FROM_TWO_ON, (_none_or_one, (ONE, OTHER))),
    **dict.fromkeys(("mk", "is"), (_ends_in_one, (ONE, OTHER))),
    **dict.fromkeys(("fil", "tl", "ceb"), (_filipino, (ONE, OTHER))),
    **dict.fromkeys(("ru", "uk", "be"), (_russian, (ONE, FEW, MANY))),
    **dict.fromkeys(("sr", "hr", "bs", "sh"), (_serbian, (ONE, FEW, OTHER))),
    **dict.fromkeys(("cs", "sk"), (_czech, (ONE, FEW, OTHER))),
    **dict.fromkeys(("sl", "hsb", "dsb"), (_slovenian, (ONE, TWO, FEW, OTHER))),
    "lt": (_lithuanian, (ONE, FEW, OTHER)),
    "lv": (_latvian, (ZERO, ONE, OTHER)),
    **dict.fromkeys(("ro", "mo"), (_romanian, (ONE, FEW, OTHER))),
    "ga": (_irish, (ONE, TWO, FEW, MANY, OTHER)),
    "cy": (_welsh, (ZERO, ONE, TWO, FEW, MANY, OTHER)),
    "mt": (_maltese, (ONE, TWO, FEW, MANY, OTHER)),
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
