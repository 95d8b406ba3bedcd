"""Settings of time: `5m` and the like beside plain seconds."""

import pytest

from otpmail.settings import SECTIONS
from otpmail.settings.duration import FORMAT, parse_seconds
from settings.conftest import Load, Problems

_TIMES = [
    name
    for section in SECTIONS
    for name, schema in zip(section.variables(), section.model_json_schema()["properties"].values(), strict=True)
    if FORMAT in {part.get("format") for part in (schema, *schema.get("anyOf", ()))}
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("500ms", 0.5), ("90s", 90), ("5m", 300), ("2h", 7200), ("2d", 172_800), ("1.5h", 5400)),
        *(("1h30m", 5400), ("1d12h", 129_600), ("1m500ms", 60.5), ("5 m", 300), ("1h 30m", 5400), ("5M", 300)),
    ],
)
def test_units(text: str, seconds: float) -> None:
    """Units go from days down to milliseconds, each at most once."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5m5m", "30s1m", "5 minutes", "-5m", "5m-", "1,5h", "٣s", "5mm", "1w", "5m\n1"]
)
def test_other_texts_are_no_times(text: str) -> None:
    """Plain numbers are left to the setting itself; all else is refused, and nothing is guessed."""
    with pytest.raises(ValueError, match="not a time"):
        parse_seconds(text)


def test_every_setting_of_time_takes_units() -> None:
    """A setting whose name says that it is a time takes units."""
    named = {
        name
        for section in SECTIONS
        for name in section.variables()
        if name.endswith(("_SECONDS", "_TIMEOUT", "_TTL", "_AGE"))
    }
    assert named == set(_TIMES)


@pytest.mark.parametrize("name", _TIMES)
def test_units_or_plain_seconds(load: Load, problems: Problems, name: str) -> None:
    """A time may be written both ways, which mean the same; anything else is an error that shows both ways."""
    ttl = {"MAIL_TTL": "60"}  # which request ids outlive
    assert load(**ttl | {name: "1m30s"}) == load(**ttl | {name: "90"})
    (line,) = problems(**{name: "soon"})
    assert line.startswith(f"{name}: 'soon' is wrong: must be a time such as 90s, 5m or 1h30m, or a number of seconds")


@pytest.mark.parametrize("name", _TIMES)
@pytest.mark.parametrize("value", ["inf", "nan", "1e300", "99999999d"])
def test_no_time_is_too_long_for_a_timer(problems: Problems, name: str, value: str) -> None:
    """A time that no clock can hold is refused at the start, and does not fail later."""
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name}: ")
