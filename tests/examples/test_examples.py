"""The programs of examples/ work as they are, each against a service of its own."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import go_programs
from node_programs import install_modules, program
from otpmail.client import Client, WrongCode
from service import Service

_ROOT = Path(__file__).parents[2]
_EXAMPLES = _ROOT / "examples"
_RUN_SECONDS = 100
_ADA = "ada@example.org"
_SIGN_UP = ["STATE_RELAYED", "RESULT_WRONG_CODE", "RESULT_VALID"]
_NO_ADDRESS = "email: is not a mailbox address (an email address must have an @-sign)"


async def _run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run a program, and return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "OTPMAIL_"))}
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.mark.parametrize(("name", "count"), [("fastapi", 5), ("django", 10)])
async def test_an_example_in_python(name: str, count: int) -> None:
    """`pytest` alone in the folder of an example in Python passes, without a warning, by otpmail's own fixture."""
    environment = {
        "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
        "PYTEST_ADDOPTS": "-p no:asyncio -p no:cacheprovider",  # the line of the page installs no pytest-asyncio
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "error",
    }
    out = await _run("pytest", folder=_EXAMPLES / name, **environment)
    assert f"{count} passed" in out


def test_the_sign_up_is_short_and_on_the_page() -> None:
    """The sign-up by FastAPI has at most 25 lines, and docs/client.md has it word by word."""
    text = (_EXAMPLES / "fastapi/sign_up.py").read_text("utf-8")
    assert len(text.splitlines()) <= 25
    page = (_ROOT / "docs/client.md").read_text("utf-8")
    assert f"```python\n{text}```" in page
    tests = (_EXAMPLES / "fastapi/test_sign_up.py").read_text("utf-8")
    assert "`pip install 'PATH_OF_CLONE[testing]' fastapi httpx2" in page  # as the tests say
    assert "`pip install 'PATH_OF_CLONE[testing]' fastapi httpx2" in tests


@asynccontextmanager
async def _stranger(service: Service) -> AsyncIterator[None]:
    """Ask for a code of the same address first, and find that code live and with all of its attempts at the end."""
    async with Client(service.address) as stranger:
        sent = await stranger.send_code(_ADA, "sign-up")
        yield
        with pytest.raises(WrongCode) as wrong:
            await stranger.check_code(_ADA, "000000", "sign-up", challenge_id=sent.challenge_id)
        assert wrong.value.attempts_left == 4


async def _url_of(service: Service) -> str:
    """Return the URL at which `otpmail dev` serves HTTP."""
    line = await service.wait_for_output("and over HTTP on ")
    return line.partition("and over HTTP on ")[2].partition(";")[0]


def _build(folder: Path) -> None:
    """Compile the examples, which finds errors of types; one process of the tests at a time."""
    install_modules(folder)
    with (folder / "tsconfig.json").open() as configured:
        fcntl.flock(configured, fcntl.LOCK_EX)
        done = subprocess.run(
            ["npm", "run", "--silent", "build"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("name", ["grpc", "fetch"])
async def test_an_example_in_node(name: str) -> None:
    """A sign-up in TypeScript, by gRPC or by plain fetch, sends a code, reads it in the inbox, and checks it."""
    program("node")
    folder = _EXAMPLES / "node"
    await asyncio.to_thread(_build, folder)
    async with Service(command="dev") as service:
        where = {"OTPMAIL_SERVER": service.address, "OTPMAIL_HTTP": await _url_of(service)}
        async with _stranger(service):
            out = await _run("npm", "run", "--silent", name, folder=folder, **where)
    error = {"grpc": "INVALID_ARGUMENT", "fetch": "invalid_argument"}[name]
    assert out.splitlines() == [*_SIGN_UP, f"{error}: {_NO_ADDRESS}"]


@pytest.mark.timeout(300)
async def test_the_example_in_go(tmp_path: Path) -> None:
    """A sign-up in Go sends a code, reads it in the inbox, and checks it."""
    built = await asyncio.to_thread(go_programs.build, _EXAMPLES / "go", tmp_path)
    async with Service(command="dev") as service:
        where = {"OTPMAIL_SERVER": service.address, "OTPMAIL_HTTP": await _url_of(service)}
        async with _stranger(service):
            out = await _run(built, folder=tmp_path, **where)
    assert out.splitlines() == [*_SIGN_UP, f"InvalidArgument: {_NO_ADDRESS}"]


async def test_the_calls_of_grpcurl() -> None:
    """The lines of grpcurl in examples/grpcurl.sh list the services, describe one, and send a code, by reflection."""
    path = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"
    async with Service(command="dev") as service:
        out = await _run("bash", _EXAMPLES / "grpcurl.sh", folder=_EXAMPLES, OTPMAIL_SERVER=service.address, PATH=path)
    assert "otpmail.v1.OtpService\n" in out
    assert "rpc SendCode ( .otpmail.v1.SendCodeRequest ) returns ( .otpmail.v1.SendCodeResponse );" in out
    assert '"state": "STATE_RELAYED"' in out
    assert "Code: InvalidArgument" in out
    assert '"field":"email"' in out  # and not the details in base64


async def test_the_calls_of_grpcurl_elsewhere(tmp_path: Path) -> None:
    """A copy of the example that has no environment beside it shows the error too, with its details in base64."""
    path = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"
    copied = shutil.copy(_EXAMPLES / "grpcurl.sh", tmp_path)
    async with Service(command="dev") as service:
        out = await _run("bash", copied, folder=tmp_path, OTPMAIL_SERVER=service.address, PATH=path)
    assert "Code: InvalidArgument" in out
    assert '"@value":"' in out


def test_the_calls_of_grpcurl_without_it(tmp_path: Path) -> None:
    """Without grpcurl, the example ends with 1 after one line, which says where to find it."""
    (tmp_path / "bash").symlink_to(program("bash"))
    command = [tmp_path / "bash", _EXAMPLES / "grpcurl.sh"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    line = "grpcurl is not installed; see https://github.com/fullstorydev/grpcurl#installation\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


async def test_a_call_by_reflection() -> None:
    """`buf curl`, which knows no contract, sends a code by gRPC: it asks the service for its contract, as grpcurl."""
    program("npm")
    await asyncio.to_thread(install_modules, _ROOT / "protos")
    async with Service(command="dev") as service:
        url = f"http://{service.address}/otpmail.v1.OtpService/SendCode"
        data = json.dumps({"email": "ada@example.org"})
        buf = _ROOT / "protos/node_modules/.bin/buf"
        command = ["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", data, url]
        answer = json.loads(await _run(buf, *command, folder=_ROOT / "protos"))
    assert answer["mail"]["state"] == "STATE_RELAYED"
