"""Characters that show nothing. People paste them along with an address or a code, and can't see them."""

import unicodedata

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt) as far as category Cf does not hold it, and the
# empty Braille pattern.
_INVISIBLE = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
            *range(0xFE00, 0xFE10),  # variation selectors, which phones put behind digits
            *range(0xE0100, 0xE01F0),
        ),
    )
)


def is_blank(character: str) -> bool:
    """Whether a character is a space, a line end or an invisible one: zero-width, bidi control, soft hyphen, BOM."""
    return character.isspace() or character in _INVISIBLE or unicodedata.category(character) == "Cf"


def trim(text: str) -> str:
    """Remove the blank characters at both ends of a text."""
    start, end = 0, len(text)
    while start < end and is_blank(text[start]):
        start += 1
    while end > start and is_blank(text[end - 1]):
        end -= 1
    return text[start:end]
