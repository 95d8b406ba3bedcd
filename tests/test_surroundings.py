"""Tests pass whatever the environment of their run holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from surroundings import forget_settings

_ROOT = Path(__file__).parents[1]
_ODD = {
    "HOST": "nowhere.invalid",
    "PORT": "1",
    "EMAIL": "me@example.org",
    "LOG_LEVEL": "debug",
    "OTP_LENGTH": "4",
    "OTPMAIL_SERVER": "nowhere.invalid:1",
    "OTPMAIL_TOKEN": "token",
    "OTPMAIL_CA_FILE": "/nowhere",
    "FORCE_COLOR": "1",
    "COLUMNS": "40",
    "TERM": "dumb",
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}


def test_what_is_forgotten() -> None:
    """Settings go, also those of a further relay, and the rest stays; loopback is reached without a proxy."""
    environment = _ODD | {"EMAIL_HOST_2": "there", "PATH": "/bin", "OTPMAIL_FUZZ": "9", "no_proxy": "example.org"}
    forget_settings(environment)
    assert environment == {
        **{name: _ODD[name] for name in ("http_proxy", "HTTPS_PROXY")},
        "PATH": "/bin",
        "OTPMAIL_FUZZ": "9",
        "no_proxy": "example.org,localhost,127.0.0.1,::1",
        "NO_PROXY": "localhost,127.0.0.1,::1",
    }


def test_a_foreign_target_keeps_its_token() -> None:
    """The client's settings stay for tests that attack a foreign server; no proxy means no exception of one."""
    environment = {"OTPMAIL_TOKEN": "token", "OTPMAIL_SERVER": "there:1", "HOST": "there"}
    forget_settings(environment, of_client=False)
    assert environment == {"OTPMAIL_TOKEN": "token"}


def test_a_run_in_an_odd_environment() -> None:
    """Tests of the client and of the commands pass with settings, colours and a proxy in the environment of the run."""
    files = (
        "client/test_endpoint.py",
        "client/test_stubs.py",
        "cli/test_endpoint.py",
        "cli/merge/test_progress.py",
        "cli/test_listing.py",
    )
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "not uvloop")
    done = subprocess.run(
        [*command, *(f"tests/{file}" for file in files)],
        cwd=_ROOT,
        env=os.environ | _ODD,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
