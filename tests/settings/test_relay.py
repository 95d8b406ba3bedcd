"""The settings of one relay: which security is used, and which credentials are complete."""

from pathlib import Path

import pytest

from settings.conftest import Load, Problems


@pytest.mark.parametrize(
    ("values", "security"),
    [
        ({}, "tls"),
        ({"EMAIL_PORT": "465"}, "tls"),
        ({"EMAIL_PORT": "587"}, "starttls"),
        ({"EMAIL_PORT": "25"}, "starttls"),
        ({"EMAIL_PORT": "587", "EMAIL_SECURITY": "TLS"}, "tls"),
        ({"EMAIL_PORT": "465", "EMAIL_SECURITY": "starttls"}, "starttls"),
        ({"EMAIL_PORT": "25", "EMAIL_SECURITY": "plain"}, "plain"),
        ({"EMAIL_PORT": "587", "EMAIL_SECURITY": ""}, "starttls"),
    ],
)
def test_security_follows_the_port_unless_it_is_set(load: Load, values: dict[str, str], security: str) -> None:
    """Port 465 speaks TLS from the first byte, any other port requires STARTTLS; plain is never the default."""
    assert load(**values).relay.security == security


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_password_may_go_unencrypted_to_this_machine(load: Load, host: str) -> None:
    """Loopback is the one place where plain is allowed with credentials."""
    values = {"EMAIL": "me", "APP_PASSWORD": "hunter2", "EMAIL_SECURITY": "plain", "EMAIL_HOST": host}
    assert load(**values).relay.security == "plain"


def test_a_token_replaces_the_password(load: Load, tmp_path: Path) -> None:
    """XOAUTH2 signs in with a name and a token file, whose content the settings do not hold."""
    (tmp_path / "token").write_text("hunter2")
    settings = load(EMAIL="me@example.org", EMAIL_AUTH="XOAUTH2", EMAIL_TOKEN_FILE="token")
    assert settings.relay.auth == "xoauth2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("name", ["EMAIL_CA_FILE", "EMAIL_TOKEN_FILE"])
def test_a_directory_is_no_file(problems: Problems, tmp_path: Path, name: str) -> None:
    """A path that can't be read is found at the start, and not at each dial."""
    assert problems(**{name: str(tmp_path)}) == (f"{name}: {str(tmp_path)!r} is wrong: is not a file that can be read",)


def test_what_is_wrong_and_has_no_default_by_itself(problems: Problems) -> None:
    """A wrong EMAIL_HELO counts as this machine's name meanwhile, so that the other settings are checked too."""
    lines = problems(EMAIL_HELO="a b", EMAIL_SECURITY="plain", EMAIL="me", APP_PASSWORD="hunter2")
    assert [line.partition(":")[0] for line in lines] == ["EMAIL_HELO", "EMAIL_SECURITY"]
