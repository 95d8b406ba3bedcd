"""The profiles of CALLERS_FILE: what each key means, the ceilings, and the line for each mistake."""

from hashlib import sha256
from pathlib import Path

import pytest

from otpmail.callers import Profile
from otpmail.errors import SettingsError
from otpmail.model import DAY, LETTERS, LONG
from otpmail.product import Product
from otpmail.settings import OtpSettings
from otpmail.settings.callers import read_callers
from otpmail.settings.profiles import MOST_TEST_DAYS, ProfileRules

_NOW = 1_798_761_600.0  # 2027-01-01
_HEAD = f'[callers.shop]\ntokens = ["{sha256(b"a").hexdigest()}"]\n'
_HERE = "[callers.shop.profiles"


def _check(folder: Path) -> None:
    if folder.name != "good":
        raise ValueError("en: subject.txt is missing")


def _profiles(path: Path, text: str, **settings: object) -> dict[str, Profile]:
    """Return the profiles of a file whose third line is the first one of the text."""
    file = path / "callers.toml"
    file.write_text(_HEAD + text)
    rules = ProfileRules(OtpSettings(**settings), _check, ("a:465", "c:587"), lambda: _NOW)  # type: ignore[arg-type]
    (entry,) = read_callers(file, (), rules).entries
    return dict(entry.caller.may.profiles or {})


def test_every_key(tmp_path: Path) -> None:
    """A profile holds what its table says, in the units of the settings; a purpose without a key leaves it to them."""
    login, other = _profiles(
        tmp_path,
        """[callers.shop.profiles.login]
        digits = 8
        lifespan = "5m"
        attempts = 3
        resend = 45
        from = "Shop <codes@Shop.example>"
        templates = "good"
        product_name = "Shop"
        product_color = "#0A7C66"
        relay = "a:465"
        failures_per_hour = 5
        failures_per_day = 20
        sends_per_hour = 3
        sends_per_day = 9
        test_addresses."Review@Example.org" = { code = "12345678", until = 2027-02-28 }
        [callers.shop.profiles."*"]
        """,
    ).values()
    assert (login.length, login.lifespan, login.attempts, login.resend) == (8, 300.0, 3, 45.0)
    assert login.sender is not None
    assert (login.sender.name, login.sender.spec.lower()) == ("Shop", "codes@shop.example")
    assert login.relay == "a:465"
    assert login.templates == tmp_path / "good"
    assert login.product == Product(name="Shop", color="#0a7c66")
    limits = login.failures_per_hour, login.failures_per_day, login.sends_per_hour, login.sends_per_day
    assert limits == (5, 20, 3, 9)
    fixed = login.test_addresses["review@example.org"]
    assert (fixed.code, fixed.until) == ("12345678", _NOW + 59 * DAY)
    assert other == Profile()


@pytest.mark.parametrize(("letters", "length"), [(4, LETTERS + 4), (11, LETTERS + 11), (12, LONG)])
def test_letters(tmp_path: Path, letters: int, length: int) -> None:
    """Four letters are twenty bits; twelve are the long code that nobody guesses."""
    assert _profiles(tmp_path, f"{_HERE}.login]\nletters = {letters}")["login"].length == length


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("digits = 5", "digits must be a whole number from 6 to 10"),
        ("digits = 11", "digits must be a whole number from 6 to 10"),
        ("digits = true", "digits must be a whole number from 6 to 10"),
        ("letters = 3", "letters must be a whole number from 4 to 12"),
        ("digits = 6\nletters = 6", "letters has no effect beside digits; write one of the two"),
        ('lifespan = "11m"', 'lifespan must be a time such as 90 or "5m", from 30 to 600 seconds, for a login'),
        ("lifespan = 29.9", 'lifespan must be a time such as 90 or "5m", from 30 to 600 seconds, for a login'),
        ('lifespan = "soon"', 'lifespan must be a time such as 90 or "5m", from 30 to 600 seconds, for a login'),
        ("attempts = 11", "attempts must be a whole number from 1 to 10"),
        ("attempts = 0", "attempts must be a whole number from 1 to 10"),
        (
            "lifespan = 60\nresend = 61",
            'resend must be a time such as 90 or "5m", from 0 to 60 seconds, the lifespan of its codes',
        ),
        (
            "failures_per_hour = 11",
            "failures_per_hour must be a whole number from 1 to 10, which OTP_FAILURES_PER_HOUR allows over all",
        ),
        (
            "sends_per_day = 31",
            "sends_per_day must be a whole number from 1 to 30, which OTP_SENDS_PER_DAY allows over all purposes",
        ),
        ("sends_per_day = 2\nsends_per_hour = 3", "sends_per_hour has no effect, as it is above sends_per_day"),
        ("failures_per_day = 2\nfailures_per_hour = 3", "failures_per_hour has no effect, as it is above failures_per"),
        ('from = "shop"', "from"),
        ("from = 5", "from is no text in quotes"),
        ('templates = "bad"', "templates en: subject.txt is missing"),
        ('product_url = "http://shop.example"', "product_url must be a URL that begins with https://"),
        ('product_color = "teal"', "product_color must be a colour as #rrggbb"),
        ("product_name = 5", "product_name is no text in quotes"),
        ("digit = 6", "digit is no key of this table; did you mean digits?"),
        ('relay = "b:25"', "relay is no relay of this service; there are a:465, c:587"),
    ],
)
def test_a_mistake_in_a_profile(tmp_path: Path, text: str, problem: str) -> None:
    """Each mistake, and each passing of a ceiling, is refused by its line and key."""
    with pytest.raises(SettingsError) as caught:
        _profiles(tmp_path, f"{_HERE}.login]\n{text}")
    line = 3 + text.count("\n") + 1
    (found,) = caught.value.problems
    assert found.startswith(f"CALLERS_FILE: {tmp_path}/callers.toml: line {line}: {_HERE}.login] {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("profiles = 5", "line 3: [callers.shop] profiles is no table; write a table for each purpose, such as"),
        ("[callers.shop.profiles]", "line 3: [callers.shop] profiles is no table"),
        ("profiles.login = 5", f"line 3: {_HERE}] login is no table"),
        (f"{_HERE}.Login]", f'line 3: {_HERE}] Login is no purpose: 1 to 32 of a-z, 0-9, _ and -, or "*" for any'),
        (f'{_HERE}."*"]\nlifespan = 601', f'line 4: {_HERE}."*"] lifespan must be a time such as 90 or "5m", from 30'),
    ],
)
def test_tables_that_are_no_profiles(tmp_path: Path, text: str, problem: str) -> None:
    """A table in the wrong place is refused. That of any purpose is that of logins which have none."""
    with pytest.raises(SettingsError) as caught:
        _profiles(tmp_path, text)
    assert caught.value.problems[0].startswith(f"CALLERS_FILE: {tmp_path}/callers.toml: {problem}")


def test_codes_that_are_for_no_login(tmp_path: Path) -> None:
    """A code for another purpose than a login may live for a day, also by the profile of any purpose."""
    text = f'{_HERE}.login]\n{_HERE}."*"]\nlifespan = "1d"\n{_HERE}.invite]\nlifespan = "24h"'
    assert [profile.lifespan for profile in _profiles(tmp_path, text).values()] == [None, 86_400.0, 86_400.0]


def test_limits_that_the_settings_raise(tmp_path: Path) -> None:
    """The ceiling of a profile's limits is what the settings allow."""
    text = f"{_HERE}.login]\nsends_per_hour = 40"
    assert _profiles(tmp_path, text, sends_per_hour=50)["login"].sends_per_hour == 40


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('"x@example.org" = 5', "must have a code and its last day"),
        ('"x@example.org" = { code = "424242" }', "must have a code and its last day"),
        (
            '"x@example.org" = { code = "42424", until = 2027-02-01 }',
            "code must be a text of 6 digits, as codes of this profile",
        ),
        ('"x@example.org" = { code = 424242, until = 2027-02-01 }', "code must be a text of 6 digits, as codes of"),
        ('"x@example.org" = { code = "424242", until = "2027-02-01" }', "until must be a day without quotes, such as"),
        (
            '"x@example.org" = { code = "424242", until = 2027-07-04 }',
            f"until is more than {MOST_TEST_DAYS} days ahead; a test address ends before that",
        ),
        ('"x@example.org" = { code = "424242", until = 2027-02-01, for = 1 }', "for is no key of this table"),
        ('"nobody" = { code = "424242", until = 2027-02-01 }', "is no address"),
    ],
)
def test_a_mistake_in_a_test_address(tmp_path: Path, entry: str, problem: str) -> None:
    """Each mistake is refused by its line, and no line shows the code."""
    with pytest.raises(SettingsError) as caught:
        _profiles(tmp_path, f"{_HERE}.login.test_addresses]\n{entry}")
    (found,) = caught.value.problems
    assert problem in found
    assert "line 4" in found
    assert "4242" not in found


def test_test_addresses_of_any_purpose(tmp_path: Path) -> None:
    """A test address is for a purpose by its name. One that has ended is no mistake: no file turns faulty by itself."""
    entry = '{ code = "424242", until = 2020-02-01 }'
    with pytest.raises(SettingsError, match="must be in the profile of a purpose by its name"):
        _profiles(tmp_path, f'{_HERE}."*".test_addresses]\n"x@example.org" = {entry}')
    login = _profiles(tmp_path, f'{_HERE}.login.test_addresses]\n"x@example.org" = {entry}')["login"]
    assert login.test_addresses["x@example.org"].until < _NOW


def test_no_fixed_code_where_tries_have_no_limit(tmp_path: Path) -> None:
    """A test address is refused where codes are long ones, at which a person may try for ever."""
    entry = '"x@example.org" = { code = "ABCDEFGHJKLM", until = 2027-02-01 }'
    with pytest.raises(SettingsError, match="must have shorter codes"):
        _profiles(tmp_path, f"{_HERE}.login]\nletters = 12\ntest_addresses.{entry}")


def test_the_first_and_the_last_day_that_may_be(tmp_path: Path) -> None:
    """A test address ends with its last day, by UTC."""
    entry = '{ code = "424242", until = 2027-07-03 }'
    login = _profiles(tmp_path, f'{_HERE}.login.test_addresses]\n"x@example.org" = {entry}')["login"]
    assert login.test_addresses["x@example.org"].until == _NOW + (MOST_TEST_DAYS + 1) * DAY


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    """The example in docs/callers.md is a good file, with the profiles that the page speaks of."""
    page = (Path(__file__).parents[2] / "docs" / "callers.md").read_text()
    example = page.partition("## Profiles")[2].partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "callers.toml"
    file.write_text(example)
    (entry,) = read_callers(file, (), ProfileRules(now=lambda: _NOW)).entries
    profiles = entry.caller.may.profiles
    assert profiles is not None
    assert [*profiles] == ["login", "device", "*"]
    assert profiles["login"].test_addresses["review@shop.example"].code == "42424242"
