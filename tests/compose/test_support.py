"""The HTML of the mails of codes, and the mail clients that support it by the data of caniemail.com."""

import json
import subprocess
from pathlib import Path

import pytest

from node_programs import install_modules, program
from otpmail.compose.building import Look
from otpmail.compose.catalog import Templates
from otpmail.product import Product

NODE = Path(__file__).parent / "node"
LOOKS = {
    "plain": Look(),
    "color": Look(Product(name="Acme", url="https://acme.example", color="#0a7c66", support_address="a@acme.example")),
    "logo": Look(Product(name="Acme", url="https://acme.example", logo_url="https://acme.example/logo.png")),
}
FOR_THE_DARK = "the mail stays light, or the client inverts it by itself"

WITHOUT = {
    **dict.fromkeys(("color-scheme CSS property", "color-scheme meta tag", "@media", "<style> element"), FOR_THE_DARK),
    **dict.fromkeys(("Attribute selector", "Class selector", "Descendant combinator"), FOR_THE_DARK),
    "<body> element": "the outer table has the same background and padding",
    "aria-label attribute": "a screen reader reads the code as text",
    "role attribute": "a screen reader may call a table by its name",
    "border-radius": "corners are square",
    "display:none": "the preheader stands above the mail",
    "height property": "the attribute of the logo says the same",
    "max-height property": "the preheader is hidden by mso-hide in Outlook",
    "overflow": "corners of the band are square",
    "text-decoration": "a link is underlined",
    "user-select": "a click selects less than the whole code",
    "word-break": "Korean words break where Latin ones would not, and a word longer than a line widens the mail",
}
"""Things that a mail does without, and what its reader sees then."""


@pytest.mark.parametrize("locale", ["en", "ar", "ko"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_mail_needs_nothing_that_a_client_lacks(look: str, locale: str) -> None:
    """Each feature that Apple Mail, Gmail, Outlook or another client lacks is one that the mail can do without."""
    node = program("node")
    install_modules(NODE)
    html = Templates(None, default_locale="en", look=LOOKS[look]).render(
        locale, "login", {"code": "271828", "reference": "K7QD", "email": "ada@example.org"}, valid_seconds=600.0
    )
    command = [node, "support.mjs"]
    done = subprocess.run(command, cwd=NODE, input=html.html, capture_output=True, text=True, timeout=60, check=True)
    lacking = json.loads(done.stdout)
    assert "aria-label attribute" in lacking  # the program looks
    assert lacking.keys() - WITHOUT.keys() == set()
