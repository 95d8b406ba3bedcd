"""The wheel in fresh environments, with the oldest and the newest packages that it allows: nothing of the server."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
_FLOORS = [requirement.replace(">=", "==") for requirement in _PROJECT["dependencies"]]
_INSTALL_SECONDS = 110
_OF_THE_CLIENT = {"otpmail", "grpcio", "protobuf", "googleapis-common-protos", "typing-extensions"}

_LOOK = """
import json, pathlib, sys
from importlib.metadata import distributions
import grpc, google.protobuf, otpmail
from otpmail.v1 import address_pb2_grpc, mail_pb2_grpc, otp_pb2, otp_pb2_grpc
stub = otp_pb2_grpc.OtpServiceStub(grpc.insecure_channel("127.0.0.1:1"))
package = pathlib.Path(otpmail.__file__).parent
print(json.dumps({
    "packages": sorted(found.metadata["Name"].lower().replace("_", "-") for found in distributions()),
    "octets": otp_pb2.SendCodeRequest(email="a@b.example").SerializeToString().hex(),
    "typed": (package / "py.typed").exists(),
    "protos": sorted(str(path.relative_to(package / "protos")) for path in package.glob("protos/**/*.proto")),
}))
"""


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _pip(*arguments: str | Path) -> None:
    _run(sys.executable, "-m", "pip", *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, _ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module", params=["oldest", "newest"])
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel alone, and with the oldest or the newest packages that fit."""
    folder = tmp_path_factory.mktemp(request.param)
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    floors = _FLOORS if request.param == "oldest" else []
    _pip("--python", folder / "bin/python", "install", "--quiet", "--no-compile", wheel, *floors)
    return folder / "bin"


def test_the_client_needs_nothing_of_the_server(environment: Path) -> None:
    """The wheel alone brings the generated code, its protos and types, and only the packages that these need."""
    found = json.loads(_run(environment / "python", "-W", "error", "-c", _LOOK))
    assert set(found["packages"]) <= _OF_THE_CLIENT
    assert found["octets"] == "0a0b6140622e6578616d706c65"
    assert found["typed"]
    assert {"otpmail/v1/otp.proto", "otpmail/v1/mail.proto", "otpmail/v1/address.proto"} <= set(found["protos"])


def test_the_command_names_the_extra_that_is_missing(environment: Path) -> None:
    """Without the packages of the server the command prints one line, which says what to install, and exits with 2."""
    done = subprocess.run([environment / "otpmail", "serve"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("otpmail: ")
    assert line.endswith(" is missing; pip install 'PATH_OF_CLONE[server]' installs it")
