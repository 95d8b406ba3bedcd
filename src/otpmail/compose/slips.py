"""Finds names in a folder of templates that are probably slips of the pen: no call is likely to have their mails."""

from collections.abc import Iterable, Iterator

from otpmail.compose.folders import MAIL_FILES, Files
from otpmail.compose.locales import tag_of
from otpmail.compose.purposes import KINDS, NEUTRAL, kind_of, names_of

_LONGEST = 3  # letters of a language; a longer one is not registered
_SHORTEST = 4  # letters of a purpose that may be misspelt
_SWAPPED_BY_CHANCE = 2  # letters of a language: `ne` is Nepali, and `ti` Tigrinya


def slips(files: Files, default_locale: str) -> Iterator[str]:
    """Yield a line for each language, purpose and file whose name is probably misspelt. It opens with its path."""
    shipped = {tag.partition("-")[0] for tag in files.words}
    for tag, locale in (files.locales or {}).items():
        if tag != tag_of(default_locale):
            yield from _about_language(tag, shipped)
        for purpose in locale.by_purpose:
            yield from _about_purpose(f"{tag}/{purpose}", purpose)
    for path in files.others:
        folder, _, name = path.rpartition("/")
        if not name:
            yield f"{folder}: has no mail, such as subject.txt.j2 and body.txt.j2"
        elif (nearest := _nearest(name, MAIL_FILES)) is not None:
            yield f"{path}: is not used; did you mean {nearest}?"


def _about_language(tag: str, shipped: Iterable[str]) -> Iterator[str]:
    language = tag.partition("-")[0]
    only = f"only calls with the locale {tag} have its mails"
    if kind_of(language) != NEUTRAL:
        yield f"{tag}: is no language; did you mean en/{tag}? {only[0].upper() + only[1:]}"
    elif (nearest := _nearest(language, shipped)) is not None:
        yield f"{tag}: did you mean {nearest}? {only[0].upper() + only[1:]}"
    elif len(language) > _LONGEST:
        yield f"{tag}: is no language; {only}"


def _about_purpose(path: str, purpose: str) -> Iterator[str]:
    if kind_of(purpose) != NEUTRAL or len(purpose) < _SHORTEST:
        return
    names = (name for kind in KINDS for name in names_of(kind))
    nearest = _nearest(purpose.replace("-", "").replace("_", ""), names)
    if nearest is not None:
        yield f"{path}: did you mean {nearest}? Only calls with the purpose {purpose} have its mail"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a slip makes this one: a letter too many, too few or another, or two swapped."""
    return next((one for one in sorted(known) if _is_slip(name, one)), None)


def _is_slip(name: str, meant: str) -> bool:
    if len(name) == len(meant):
        wrong = [place for place, (one, other) in enumerate(zip(name, meant, strict=True)) if one != other]
        if len(wrong) == 2:
            swapped = wrong[1] == wrong[0] + 1 and sorted(name) == sorted(meant)
            return swapped and len(name) > _SWAPPED_BY_CHANCE
        return len(wrong) == 1 and len(name) >= _SHORTEST
    longer, shorter = sorted((name, meant), key=len, reverse=True)
    return any(longer[:place] + longer[place + 1 :] == shorter for place in range(len(longer)))
