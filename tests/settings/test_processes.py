"""PROCESSES: what it needs, and what each process has of the limits."""

import re

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import Settings
from otpmail.settings.portions import Portion, portions
from otpmail.settings.reload import reload
from otpmail.settings.sources import Sources

pytestmark = pytest.mark.usefixtures("empty_directory")

_GOOD = {
    "EMAIL_HOST": "127.0.0.1",
    "EMAIL_SECURITY": "plain",
    "EMAIL_FROM": "codes@example.org",
    "STORE_URL": "redis://:hunter2@127.0.0.1",
    "OTP_KEYS": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "MEMORY_MAX_MB": "400",
}


def _load(**more: str) -> Settings:
    return Settings.load(**{**_GOOD, **more})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"STORE_URL": "memory:"}, r"PROCESSES: is 3, and a store of one process is set \(STORE_URL=memory:\); set .*"),
        ({"STORE_URL": "sqlite:/tmp/s"}, r"PROCESSES: is 3, .* \(STORE_URL=sqlite:\); set STORE_URL to redis://.*"),
        (
            {"HOST": "::1,unix:/tmp/s"},
            r"PROCESSES: is 3, and no two .* Unix socket \(unix:/tmp/s\); .* HOST.*",
        ),
        ({"WORKERS": "2"}, r"WORKERS: is 2 for all processes together, and PROCESSES is 3; .* PROCESSES to 2"),
        ({"QUEUE_SIZE": "1"}, "QUEUE_SIZE: is 1 for all .*"),
        ({"MAX_CONNECTIONS": "2"}, "MAX_CONNECTIONS: is 2 for all .*"),
        ({"MEMORY_MAX_MB": "100"}, r"MEMORY_MAX_MB: is 100 MiB .*, 33 for each of PROCESSES=3, .* to 132 or more, .*"),
        ({"PROCESSES": "0"}, "PROCESSES: '0' is wrong: .* from 1 to 256"),
        ({"PROCESSES": "257"}, "PROCESSES: '257' is wrong: .* from 1 to 256"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_go_with_several_processes_is_refused(settings: dict[str, str], line: str) -> None:
    """One line opens with the setting to change, and names PROCESSES; one process takes the same settings."""
    with pytest.raises(SettingsError) as caught:
        _load(**{"PROCESSES": "3", **settings})
    (problem,) = caught.value.problems
    assert re.fullmatch(line, problem), problem
    assert "hunter2" not in problem
    if "PROCESSES" not in settings:
        _load(**settings)


def test_the_parts_of_all_processes_are_the_whole() -> None:
    """Limits are divided without a rest; the first processes have what can't be divided evenly."""
    whole = _load(
        PROCESSES="3",
        WORKERS="5",
        QUEUE_SIZE="10000",
        MAX_CONNECTIONS="100",
        EMAIL_RATE="10",
        EMAIL_STANDBY="2",
    )
    parts = [portion.of_settings(whole) for portion in portions(3)]
    assert [part.mail.workers for part in parts] == [2, 2, 1]
    assert [part.relay.standby for part in parts] == [1, 1, 1]  # else a process would let its next mail wait for a dial
    assert {part.mail.memory_max_mb for part in parts} == {133}
    assert sum(part.mail.queue_size for part in parts) == 10_000
    assert sum(part.server.max_connections for part in parts) == 100
    assert {part.mail.mail_remember_count for part in parts} == {20_000}  # of the store, which all share
    assert sum(part.relay.rate or 0 for part in parts) == pytest.approx(10)


def test_one_process_has_the_settings_as_they_are() -> None:
    """With PROCESSES=1 nothing is divided, and a limit that is not set stays so."""
    whole = Settings.load(**{name: value for name, value in _GOOD.items() if name != "MEMORY_MAX_MB"})
    assert Portion().of_settings(whole) is whole
    assert whole.server.processes == 1
    assert whole.mail.memory_max_mb is None


def test_without_a_rate_each_process_has_none() -> None:
    """A rate that is not set limits no process; without a standby connection no process keeps one."""
    part = Portion(2, 3).of_settings(_load(PROCESSES="3", EMAIL_STANDBY="0"))
    assert (part.relay.rate, part.relay.standby) == (None, 0)


def test_a_reload_of_a_process_compares_its_part() -> None:
    """A reload divides what it reads, so that a part is no change that needs a restart; a changed limit is one."""
    whole = _load(PROCESSES="2", WORKERS="5")
    portion = Portion(2, 2)
    same = reload(portion.of_settings(whole), Sources.read(()), {**_GOOD, "PROCESSES": "2", "WORKERS": "5"}, portion)
    assert (same.changed, same.need_restart, same.problems) == ((), (), ())
    other = reload(portion.of_settings(whole), Sources.read(()), {**_GOOD, "PROCESSES": "2", "WORKERS": "9"}, portion)
    assert other.need_restart == ("WORKERS",)
