"""A second reading of the settings: which new values are taken, which are wrong, and which need a restart."""

from pathlib import Path

import pytest

from otpmail.settings import Settings, read_sources
from otpmail.settings.reload import Reloaded, reload

_URLS = "smtps://me:{0}@one.example smtp://me:{1}@two.example"


def _read_twice(directory: Path, before: str, after: str) -> tuple[Settings, Reloaded]:
    (directory / ".env").write_text(before)
    settings = Settings.load()
    (directory / ".env").write_text(after)
    return settings, reload(settings, read_sources(), {})


def _passwords(settings: Settings) -> list[str]:
    return [relay.password.get_secret_value() for relay in settings.relays]


def test_nothing_new(tmp_path: Path) -> None:
    """The same sources give the same settings."""
    text = "EMAIL=me\nAPP_PASSWORD=old\nLOG_LEVEL=debug\n"
    before, again = _read_twice(tmp_path, text, text)
    assert again == Reloaded(before, ())


def test_passwords_in_urls(tmp_path: Path) -> None:
    """Each relay gets its own new password, and the line names EMAIL_RELAYS."""
    before, again = _read_twice(
        tmp_path, f"EMAIL_RELAYS={_URLS.format('a', 'b')}\n", f"EMAIL_RELAYS={_URLS.format('a', 'c')}\n"
    )
    assert (_passwords(before), _passwords(again.settings)) == (["a", "b"], ["a", "c"])
    assert (again.problems, again.changed, again.need_restart) == ((), ("EMAIL_RELAYS",), ())


@pytest.mark.parametrize(
    ("urls", "problems", "need_restart"),
    [
        ("smtps://me:a@one.example", 0, ("EMAIL_RELAYS",)),
        ("smtps://me:a@one.example smtp://you:new@two.example", 0, ("EMAIL_RELAYS",)),
        ("smtps://me:a@one.example smtp://me:new@two.example:99999", 1, ()),
        ("smtps://me:a@one.example ftp://me:new@two.example", 1, ()),
    ],
)
def test_other_relays_need_a_restart(tmp_path: Path, urls: str, problems: int, need_restart: tuple[str, ...]) -> None:
    """A password is taken for the account that it was for only; a wrong URL leaves all relays as they were."""
    before, again = _read_twice(tmp_path, f"EMAIL_RELAYS={_URLS.format('a', 'b')}\n", f"EMAIL_RELAYS={urls}\n")
    assert again.settings == before
    assert (len(again.problems), again.changed, again.need_restart) == (problems, (), need_restart)


def test_a_password_that_is_gone(tmp_path: Path) -> None:
    """A name without a password is wrong, so the password before stays."""
    before, again = _read_twice(tmp_path, "EMAIL=me\nAPP_PASSWORD=old\n", "EMAIL=me\n")
    assert again.settings == before
    (line,) = again.problems
    assert line.startswith("APP_PASSWORD: is needed")
    assert (again.changed, again.need_restart) == ((), ())


def test_a_password_moves_into_a_file(tmp_path: Path) -> None:
    """A password may come from another source than before."""
    (tmp_path / "password").write_text("new\n")
    _, again = _read_twice(tmp_path, "EMAIL=me\nAPP_PASSWORD=old\n", "EMAIL=me\nAPP_PASSWORD_FILE=password\n")
    assert _passwords(again.settings) == ["new"]
    assert again.changed == ("APP_PASSWORD_FILE",)


def test_another_account_needs_a_restart(tmp_path: Path) -> None:
    """The new password of another user is not tried with the old one."""
    before, again = _read_twice(tmp_path, "EMAIL=me\nAPP_PASSWORD=old\n", "EMAIL=you\nAPP_PASSWORD=new\n")
    assert again.settings == before
    assert set(again.need_restart) >= {"EMAIL"}
    assert again.changed == ()


def test_each_good_value_is_taken(tmp_path: Path) -> None:
    """A wrong value keeps no good one from being taken."""
    before, again = _read_twice(
        tmp_path,
        "EMAIL=me\nAPP_PASSWORD=old\nLOG_LEVEL=info\nWORKERS=2\n",
        "EMAIL=me\nAPP_PASSWORD=new\nLOG_LEVEL=loud\nWORKERS=3\nOTP_DIGITS=99\nEMIAL_RATE=1\n",
    )
    assert _passwords(again.settings) == ["new"]
    assert again.settings.server == before.server
    assert again.settings.mail.workers == 2
    assert {line.partition(":")[0] for line in again.problems} == {"LOG_LEVEL", "OTP_DIGITS", "EMIAL_RATE"}
    assert (again.changed, again.need_restart) == (("APP_PASSWORD",), ("WORKERS",))


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    """After a line that can't be read any setting may be meant, so all stay as they were."""
    before, again = _read_twice(tmp_path, "LOG_LEVEL=info\n", "LOG_LEVEL=debug\nLOG LEVEL\n")
    assert again.settings == before
    assert len(again.problems) == 1
    assert (again.changed, again.need_restart) == ((), ())
