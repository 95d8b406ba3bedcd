"""The service that the commands call, and the words that start the program."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from otpmail.cli import endpoint
from otpmail.errors import SettingsError
from otpmail.settings import read_sources


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The console script in a virtual environment of the working directory."""
    script = tmp_path / ".venv" / "bin" / "otpmail"
    script.parent.mkdir(parents=True)
    script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return script


def test_which_service_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OTPMAIL_SERVER names the service, else HOST and PORT do; with a wrong setting no service is called."""
    for name in ("HOST", "PORT", "OTPMAIL_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("otpmail.settings.is_present", lambda _: True)
    monkeypatch.chdir(tmp_path)
    assert endpoint.leads_to("127.0.0.1:40700", read_sources())
    for line, address in {
        "HOST=::": "[::1]:40700",
        "HOST=unix:s,127.0.0.1": "unix:s",
        "HOST=::1,unix:s\nPORT=7": "[::1]:7",
        "OTPMAIL_SERVER=there:1": "there:1",
    }.items():
        (tmp_path / ".env").write_text(line)
        assert endpoint.own_address() == address
        assert not endpoint.leads_to("127.0.0.1:40700", read_sources())
    (tmp_path / ".env").write_text("PORT=x")
    assert not endpoint.leads_to("127.0.0.1:40700", read_sources())


@pytest.mark.parametrize(
    ("server", "good"),
    [
        *(
            (server, True)
            for server in (
                "127.0.0.1:1",
                "localhost:65535",
                "a-b_c.example:40700",
                "[::1]:1",
                "unix:s",
                "[fe80::1%eth0]:1",
            )
        ),
        *((server, False) for server in ("nonsense", ":1", "host:", "host:0", "host:65536", "host:http", "unix:")),
        *((server, False) for server in ("::1:40700", "http://host:1", "host:1/x", "me@host:1", "a b:1", "host:1\n")),
    ],
)
def test_the_form_of_an_address(server: str, good: bool) -> None:  # noqa: FBT001
    """An address is host:port or unix:PATH; the error for another form opens with the name of the option."""
    if good:
        assert endpoint.well_formed(server, "--server") == server
        return
    with pytest.raises(SettingsError) as caught:
        endpoint.well_formed(server, "--server")
    assert str(caught.value).startswith(f"--server: {server!r} is wrong: must be host:port, such as ")


def test_an_address_of_a_name_that_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands pass over an address of a name that this machine lacks, as the service does."""
    monkeypatch.delenv("OTPMAIL_SERVER", raising=False)
    known = [(0, 0, 0, "", (address, 0)) for address in ("192.0.2.1", "127.0.0.2")]
    resolve = socket.getaddrinfo

    def two(host: str, *more: Any, **named: Any) -> list[Any]:
        return known if host == "two.example" else resolve(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("HOST=two.example\n")
    assert endpoint.own_address() == "127.0.0.2:40700"


def test_a_script_that_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    """A script outside PATH is named by its path from here, or from elsewhere by its whole path."""
    for started in (".venv/bin/otpmail", str(script)):
        monkeypatch.setattr(sys, "argv", [started])
        assert endpoint.own_command() == ".venv/bin/otpmail"
    monkeypatch.chdir(script.parent)
    assert endpoint.own_command() == "./otpmail"
    monkeypatch.chdir("/")
    assert endpoint.own_command().endswith("/.venv/bin/otpmail")


def test_a_script_on_the_path(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    """The script's name is enough where PATH finds this script, and not another one."""
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert endpoint.own_command() == "otpmail"
    other = script.parents[2] / "other" / "otpmail"
    other.parent.mkdir()
    other.touch(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert endpoint.own_command() == ".venv/bin/otpmail"


def test_the_module(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    """`python -m otpmail` is named with its interpreter, quoted where a shell needs quotes."""
    monkeypatch.setattr(sys, "argv", ["/site-packages/otpmail/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    assert endpoint.own_command() == ".venv/bin/python -m otpmail"
    monkeypatch.setattr(sys, "executable", "/my python")
    assert endpoint.own_command() == "'/my python' -m otpmail"


@pytest.mark.parametrize(
    ("listens", "has_ipv6", "called"),
    [
        ("0.0.0.0:40700", True, "127.0.0.1:40700"),
        ("[::]:40700", True, "[::1]:40700"),
        ("[::]:40700", False, "127.0.0.1:40700"),
        ("10.0.0.0:1", True, "10.0.0.0:1"),
        ("unix:/run/s", True, "unix:/run/s"),
    ],
)
def test_any_address_is_called_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
    listens: str,
    has_ipv6: bool,  # noqa: FBT001
    called: str,
) -> None:
    """A service that listens on all addresses is called on loopback; any other one where it listens."""
    monkeypatch.setattr("otpmail.settings.is_present", lambda _: has_ipv6)
    assert endpoint.callable_address(listens) == called
