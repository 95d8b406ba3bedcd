"""The product of a mail: the contrast of its colour, and what it takes from another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.product import Product, contrast


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#ffffff", "#000000", 21.0),
        ("#777777", "#ffffff", 4.48),
        ("#0000ff", "#ffffff", 8.59),
        ("#abcdef", "#abcdef", 1.0),
    ],
)
def test_contrast(one: str, other: str, ratio: float) -> None:
    """The ratio is that of WCAG, whichever colour comes first."""
    assert contrast(one, other) == pytest.approx(ratio, abs=0.005)
    assert contrast(other, one) == contrast(one, other)


@given(st.integers(0, 0xFFFFFF))
def test_text_on_any_colour_can_be_read(number: int) -> None:
    """White or black has a contrast of 4.5 to 1 on every colour (WCAG 2.2, 1.4.3)."""
    product = Product(color=f"#{number:06x}")
    assert contrast(product.on_accent, product.accent) >= 4.5


def test_a_product_takes_what_it_lacks() -> None:
    """A product without a name is the other one with some parts changed; one with a name is another product."""
    acme = Product(name="Acme", url="https://acme.example", color="#123456")
    assert Product(color="#abcdef").or_else(acme) == Product(name="Acme", url="https://acme.example", color="#abcdef")
    assert Product(name="Shop").or_else(acme) == Product(name="Shop")
