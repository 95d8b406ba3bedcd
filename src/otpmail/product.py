"""The product that mails of codes speak for: its name, its pages, its colour, and where its people answer."""

from typing import Self

from otpmail.values import frozen

_LIGHT, _DARK = "#ffffff", "#000000"
_ACCENT = "#18181b"


@frozen(kw_only=True)
class Product:
    """A product that mails speak for. An empty field leaves its part of a mail out."""

    name: str = ""
    url: str = ""
    logo_url: str = ""
    color: str = ""
    support_address: str = ""

    @property
    def accent(self) -> str:
        """The colour of the product, else one that suits any."""
        return self.color or _ACCENT

    @property
    def on_accent(self) -> str:
        """The colour of text on the accent, of white and black the one with more contrast: 4.5 to 1 or more."""
        return max((_LIGHT, _DARK), key=lambda text: contrast(text, self.accent))

    def or_else(self, other: Self) -> Self:
        """Return this product, with what it lacks from `other`; one with a name of its own takes nothing from there."""
        if self.name:
            return self
        return type(self)(
            name=other.name,
            url=self.url or other.url,
            logo_url=self.logo_url or other.logo_url,
            color=self.color or other.color,
            support_address=self.support_address or other.support_address,
        )


def contrast(one: str, other: str) -> float:
    """The contrast of two colours `#rrggbb`, from 1 to 21 (WCAG 2.2, 1.4.3)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    """The relative luminance of a colour (WCAG 2.2)."""
    red, green, blue = (_linear(int(color[start : start + 2], 16) / 255) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
