"""Settings without effect: each has a line that names it, and the one on which it depends."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from otpmail.settings import Settings, read_sources
from otpmail.settings.doubts import doubts

Doubted = Callable[..., list[str]]


@pytest.fixture
def doubted(monkeypatch: pytest.MonkeyPatch) -> Doubted:
    """Return the lines about settings without effect, of a start with these variables in the environment."""

    def doubted(fixed: Mapping[str, str | None] = MappingProxyType({}), /, **variables: str) -> list[str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        sources = read_sources()
        found = doubts(Settings.load(sources, **fixed), sources, fixed)
        return [doubt.line for doubt in found if not doubt.is_unknown]

    return doubted


_NO_REDIS = "STORE_URL names no server of Redis"


@pytest.mark.parametrize(
    ("settings", "name", "why"),
    [
        ({"HTTP_HOST": "127.0.0.1"}, "HTTP_HOST", "HTTP_PORT is not set"),
        ({"HTTP_ALLOWED_HOSTS": "mail.example"}, "HTTP_ALLOWED_HOSTS", "HTTP_PORT is not set"),
        ({"HTTP_CORS_ORIGINS": "https://app.example"}, "HTTP_CORS_ORIGINS", "HTTP_PORT is not set"),
        (
            {"HTTP_ALLOWED_HOSTS": "mail.example", "HTTP_PORT": "8080", "HTTP_HOST": "0.0.0.0"},
            "HTTP_ALLOWED_HOSTS",
            "HTTP_HOST is 0.0.0.0, where a request may have any Host; it counts on loopback only",
        ),
        ({"SOCKET_MODE": "0660"}, "SOCKET_MODE", "HOST has no Unix socket, such as unix:/run/otpmail.sock"),
        (
            {"HEALTH_OPEN": "false"},
            "HEALTH_OPEN",
            "callers are not asked who they are; set CALLERS_FILE or TLS_CLIENT_CA_FILE",
        ),
        (
            {"PROCESS_HANG_SECONDS": "5"},
            "PROCESS_HANG_SECONDS",
            "PROCESSES is 1, and a process alone has no supervisor",
        ),
        ({"STORE_PASSWORD": "hunter2"}, "STORE_PASSWORD", _NO_REDIS),
        ({"STORE_SENTINEL_PASSWORD": "hunter2"}, "STORE_SENTINEL_PASSWORD", _NO_REDIS),
        ({"STORE_TLS_NAME": "redis.example"}, "STORE_TLS_NAME", _NO_REDIS),
        ({"STORE_NAMESPACE": "shop"}, "STORE_NAMESPACE", _NO_REDIS),
        ({"STORE_ALLOW_VOLATILE": "true"}, "STORE_ALLOW_VOLATILE", _NO_REDIS),
        ({"STORE_WAIT_REPLICAS": "2"}, "STORE_WAIT_REPLICAS", _NO_REDIS),
        (
            {"STORE_SENTINEL_PASSWORD": "hunter2", "STORE_URL": "redis://127.0.0.1", "OTP_KEYS": f"k1:{'A' * 43}="},
            "STORE_SENTINEL_PASSWORD",
            "STORE_URL names no Sentinels",
        ),
    ],
)
def test_a_setting_without_the_one_it_needs(doubted: Doubted, settings: dict[str, str], name: str, why: str) -> None:
    """A setting has a line if it has no effect without another. The line names both, and shows no secret."""
    assert doubted(**settings) == [f"{name}: has no effect, since {why}"]


@pytest.mark.parametrize(
    "settings",
    [
        {"HTTP_HOST": "127.0.0.1", "HTTP_ALLOWED_HOSTS": "mail.example", "HTTP_PORT": "8080"},
        {"HTTP_HOST": "0.0.0.0", "HTTP_CORS_ORIGINS": "https://app.example", "HTTP_PORT": "8080"},
        {"SOCKET_MODE": "0660", "HOST": "unix:s,127.0.0.1"},
        {"HEALTH_OPEN": "true", "STORE_ALLOW_VOLATILE": "false"},
        {"PROCESS_HANG_SECONDS": "0", "STORE_WAIT_REPLICAS": "0"},
        {"HEALTH_OPEN": "false", "CALLERS_FILE": "callers.toml"},
        {"STORE_PASSWORD": "hunter2", "STORE_URL": "redis://127.0.0.1", "OTP_KEYS": f"k1:{'A' * 43}="},
        {
            "PROCESS_HANG_SECONDS": "5",
            "PROCESSES": "2",
            "STORE_URL": "redis://127.0.0.1",
            "OTP_KEYS": f"k1:{'A' * 43}=",
        },
    ],
)
def test_settings_with_the_one_they_need(doubted: Doubted, settings: dict[str, str]) -> None:
    """Settings that have an effect have no line, and neither have switches that are off."""
    assert doubted(**settings) == []


def test_a_file_of_secrets_dir(doubted: Doubted, tmp_path: Path) -> None:
    """A setting counts as set wherever it stands."""
    (tmp_path / "http_host").write_text("0.0.0.0")
    assert doubted(SECRETS_DIR=str(tmp_path)) == ["HTTP_HOST: has no effect, since HTTP_PORT is not set"]


def test_settings_that_a_command_fixes(doubted: Doubted) -> None:
    """What a command fixes by itself is not doubted, and neither is what depends on that."""
    assert doubted({"PROCESSES": "1"}, PROCESSES="4", PROCESS_HANG_SECONDS="5") == []
