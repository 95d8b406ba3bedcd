"""Programs in Go that tests build, with the packages of Debian: what protoc makes of protos/, and the program."""

import os
import subprocess
from pathlib import Path

import pytest

from node_programs import program

_PROTOS = Path(__file__).parents[1] / "protos"
_PACKAGES = Path("/usr/share/gocode")
"""Where Debian's packages of Go have their sources."""
_BUILD_SECONDS = 110


def build(folder: Path, work: Path) -> Path:
    """Build the program in a folder, and return where it is; skip where Go or its packages are missing, but not in CI.

    `work` gets the generated code, and the program.
    """
    protoc, *_ = (program(name) for name in ("protoc", "protoc-gen-go", "protoc-gen-go-grpc"))
    if not (_PACKAGES / "src/google.golang.org/grpc").is_dir():
        message = f"{_PACKAGES} has no gRPC for Go"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    sources = work / "src"
    sources.mkdir()
    contract = sorted(str(path.relative_to(_PROTOS)) for path in _PROTOS.glob("otpmail/v1/*.proto"))
    _run(protoc, "-I", _PROTOS, f"--go_out={sources}", f"--go-grpc_out={sources}", *contract)
    environment = {"GO111MODULE": "off", "GOPATH": f"{work}:{_PACKAGES}", "GOFLAGS": ""}
    built = work / "program"
    _run(program("go"), "build", "-o", built, ".", cwd=folder, env=os.environ | environment)
    _run(program("go"), "vet", ".", cwd=folder, env=os.environ | environment)
    assert _run(program("gofmt"), "-l", ".", cwd=folder) == ""
    return built


def _run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)
