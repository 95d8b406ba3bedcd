"""The settings of the product that mails of codes speak for. A profile of CALLERS_FILE may have its own."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from otpmail.address import parse_address
from otpmail.errors import InvalidArgument
from otpmail.product import Product
from otpmail.settings.section import Section, broken_rule

_MOST_NAME = 64
_MOST_URL = 1000
_JOINERS = dict.fromkeys((0x200C, 0x200D))
"""Names of Persian and Hindi may need these to be spelled right, and an emoji of several is joined by one."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # the characters of a URL (RFC 3986), without quotes


def product_name(text: str) -> str:
    """Return the name of a product. Raises ValueError where it could not stand in a subject."""
    if len(text) > _MOST_NAME:
        raise ValueError(f"is longer than {_MOST_NAME} characters")
    visible = text.translate(_JOINERS)
    if text and not (visible.isprintable() and visible.strip()):
        raise ValueError("has a character that is not visible, such as a line end")
    return text.strip()


def https_url(text: str) -> str:
    """Return a URL that mails may hold. Raises ValueError."""
    if not text:
        return text
    try:
        parts = urlsplit(text)
        is_good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or len(text) > _MOST_URL or not _URL.fullmatch(text):
        raise ValueError(f"must be a URL that begins with https://, of ASCII, at most {_MOST_URL} characters")
    return text


def color(text: str) -> str:
    """Return a colour in lower case. Raises ValueError."""
    if text and not _COLOR.fullmatch(text):
        raise ValueError("must be a colour as #rrggbb, such as #0a7c66")
    return text.lower()


def support_address(text: str) -> str:
    """Return an address without a name. Raises ValueError."""
    try:
        return parse_address(text, "").spec if text else text
    except InvalidArgument as error:
        raise ValueError(error.description) from None


PRODUCT_READERS: Mapping[str, Callable[[str], str]] = {
    "product_name": product_name,
    "product_url": https_url,
    "product_logo_url": https_url,
    "product_color": color,
    "support_address": support_address,
}
"""How the keys of a profile are read, which are those of the settings in lower case."""


def product_of(values: Mapping[str, str]) -> Product:
    """Return the product of values by these keys."""
    return Product(
        name=values.get("product_name", ""),
        url=values.get("product_url", ""),
        logo_url=values.get("product_logo_url", ""),
        color=values.get("product_color", ""),
        support_address=values.get("support_address", ""),
    )


class ProductSettings(Section):
    """The product's name, pages and colour, and the address of its support."""

    model_config = SettingsConfigDict(env_prefix="PRODUCT_")

    name: str = ""
    url: str = ""
    logo_url: str = ""
    color: str = ""
    support_address: str = Field(default="", validation_alias="SUPPORT_ADDRESS")

    @field_validator("name")
    @classmethod
    def _read_name(cls, value: str) -> str:
        return _checked(product_name, value)

    @field_validator("url", "logo_url")
    @classmethod
    def _read_url(cls, value: str) -> str:
        return _checked(https_url, value)

    @field_validator("color")
    @classmethod
    def _read_color(cls, value: str) -> str:
        return _checked(color, value)

    @field_validator("support_address")
    @classmethod
    def _read_address(cls, value: str) -> str:
        return _checked(support_address, value)

    @property
    def product(self) -> Product:
        """The product."""
        return Product(
            name=self.name,
            url=self.url,
            logo_url=self.logo_url,
            color=self.color,
            support_address=self.support_address,
        )


def _checked(read: Callable[[str], str], value: str) -> str:
    try:
        return read(value)
    except ValueError as error:
        raise broken_rule(str(error)) from None
