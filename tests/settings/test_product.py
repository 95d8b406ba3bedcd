"""The settings of the product that mails speak for."""

import pytest

from otpmail.product import Product
from otpmail.settings.product import product_name
from settings.conftest import Load, Problems


def test_a_product(load: Load) -> None:
    """Each setting is a part of the product; a colour counts in any case, and a name without the blanks around it."""
    assert load().product.product == Product()
    settings = load(
        PRODUCT_NAME=" Café Ü ",
        PRODUCT_URL="https://acme.example/start?a=1&b=2#top",
        PRODUCT_LOGO_URL="https://cdn.acme.example:8443/logo.png",
        PRODUCT_COLOR="#0A7C66",
        SUPPORT_ADDRESS="Help@acme.example",
    )
    assert settings.product.product == Product(
        name="Café Ü",
        url="https://acme.example/start?a=1&b=2#top",
        logo_url="https://cdn.acme.example:8443/logo.png",
        color="#0a7c66",
        support_address="Help@acme.example",
    )


@pytest.mark.parametrize(
    "name", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f467 Family"]
)
def test_a_name_whose_letters_are_joined(name: str) -> None:
    """The joiners of Unicode are parts of some names; alone they are none."""
    assert product_name(name) == name
    with pytest.raises(ValueError, match="not visible"):
        product_name("\u200d\u200c")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PRODUCT_NAME", "Acme\r\nBcc: eve@example.org", "has a character that is not visible"),
        ("PRODUCT_NAME", "Acme\u202eemca", "has a character that is not visible"),
        ("PRODUCT_NAME", "x" * 65, "is longer than 64 characters"),
        ("PRODUCT_URL", "http://acme.example", "must be a URL that begins with https://"),
        ("PRODUCT_URL", "javascript:alert(1)", "must be a URL that begins with https://"),
        ("PRODUCT_URL", "https://", "must be a URL that begins with https://"),
        ("PRODUCT_URL", "https://user:pass@acme.example", "must be a URL that begins with https://"),
        ("PRODUCT_URL", "https://acme.example/a b", "must be a URL that begins with https://"),
        ("PRODUCT_LOGO_URL", 'https://acme.example/"onerror=', "must be a URL that begins with https://"),
        ("PRODUCT_LOGO_URL", "https://[acme/logo.png", "must be a URL that begins with https://"),
        ("PRODUCT_COLOR", "teal", "must be a colour as #rrggbb"),
        ("PRODUCT_COLOR", "#fff", "must be a colour as #rrggbb"),
        ("PRODUCT_COLOR", "#ffffff;x", "must be a colour as #rrggbb"),
        ("SUPPORT_ADDRESS", "acme", "is"),
        ("OTP_DOMAIN", "https://acme.example", "is not a domain such as example.com"),
        ("OTP_DOMAIN", "acme example", "is not a domain such as example.com"),
    ],
)
def test_a_mistake(problems: Problems, name: str, value: str, said: str) -> None:
    """A value that a mail can't show is an error that names its setting and says what is right."""
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name}: ")
    assert said in line
