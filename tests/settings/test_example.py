"""`.env.example` shows every setting once, with its default."""

import re
from pathlib import Path

import pytest

from otpmail.settings import SECTIONS, ClientSettings, secrets_dir
from otpmail.settings.section import Section

_LINES = re.findall(r"(?m)^(#?)([A-Za-z_]+)=(.*)$", (Path(__file__).parents[2] / ".env.example").read_text("utf-8"))
_SHOWN = {name: value for _, name, value in _LINES}
_EXAMPLES = {"EMAIL_RELAYS", "OTPMAIL_SERVER"}
"""Settings without a default, which are shown with an example."""
_DEFAULTS = [
    (section, name, default)
    for section in SECTIONS
    for name, default in section.defaults().items()
    if name not in _EXAMPLES
]


def test_every_setting_is_shown_once() -> None:
    """Each setting is named once, commented out, and so are the names that other programs read; nothing else is."""
    settings = {name for section in SECTIONS for name in section.variables()}
    others = {"SECRETS_DIR", "OTPMAIL_SERVER", "TARGET", *ClientSettings.variables()}
    assert sorted(name for _, name, _ in _LINES) == sorted(settings | others)
    assert {mark for mark, _, _ in _LINES} == {"#"}


@pytest.mark.parametrize(("section", "name", "default"), _DEFAULTS, ids=[name for _, name, _ in _DEFAULTS])
def test_each_is_shown_with_its_default(section: type[Section], name: str, default: object) -> None:
    """Taking the # away changes nothing; an empty value stands for a default that is empty or this machine's name."""
    if not _SHOWN[name]:
        assert name == "EMAIL_HELO" or not default or default == ""
        return
    assert section.from_layers({name: _SHOWN[name]}) == section.from_layers()


def test_the_directory_of_secrets_is_shown_with_its_default() -> None:
    """SECRETS_DIR is no setting of a section, but has a default like them."""
    assert _SHOWN["SECRETS_DIR"] == secrets_dir.DEFAULT
