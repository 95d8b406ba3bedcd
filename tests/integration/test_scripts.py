"""The scripts that a newcomer runs first, in a tree of their own: the tests touch no other `.env` or `.venv`."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from http1 import request
from service import SOURCES

_ROOT = Path(__file__).parents[2]
_MOST_SECONDS = 100.0  # generous: the machine may be busy
_INTERPRETER = shlex.quote(sys.executable)  # its path may have a space


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The scripts, with a `.venv` whose programs run this otpmail."""
    for name in ("run", "venv", "test", "test-pythons", "attacks", "faults", "lock", "help.bash"):
        _copy(f"scripts/{name}", tmp_path)
    _copy("pyproject.toml", tmp_path)
    _copy(".ci/run", tmp_path)
    _write_script(tmp_path / ".venv/bin/python", f'exec {_INTERPRETER} "$@"')
    _write_script(tmp_path / ".venv/bin/otpmail", f'exec {_INTERPRETER} -m otpmail "$@"')
    return tmp_path


def _copy(name: str, tree: Path) -> None:
    (tree / name).parent.mkdir(exist_ok=True)
    shutil.copy(_ROOT / name, tree / name)


def _write_script(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{line}\n")
    path.chmod(0o755)


async def _start(script: Path, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        str(script),
        *arguments,
        env=inherited | {"PYTHONPATH": SOURCES} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _run(script: Path, *arguments: str, **environment: str) -> tuple[int | None, str]:
    process = await _start(script, *arguments, **environment)
    out, _ = await asyncio.wait_for(process.communicate(), _MOST_SECONDS)
    return process.returncode, out.decode()


def _content(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*"))


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--quick", "--help")])
async def test_every_script_has_help(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Each script that is asked for help prints the comment at its head, and neither starts nor installs anything."""
    names = [path.name for path in (_ROOT / "scripts").iterdir() if os.access(path, os.X_OK)]
    for name in (*names, "help.bash"):
        _copy(f"scripts/{name}", tmp_path)
    before = _content(tmp_path)
    answers = await asyncio.gather(*(_run(tmp_path / "scripts" / name, *arguments) for name in names))
    for name, (code, out) in zip(names, answers, strict=True):
        head, _, _ = (_ROOT / "scripts" / name).read_text().partition('\n. "$(dirname')
        comment = [line.removeprefix("# ") for line in head.splitlines()[1:]]
        assert (name, code, out.splitlines()) == (name, 0, comment)
        assert comment
    assert _content(tmp_path) == before


@pytest.mark.skipif(shutil.which("dash") is None, reason="every Debian has it")
async def test_every_script_says_that_it_is_for_bash(tmp_path: Path) -> None:
    """A script that another shell runs, as `sh scripts/run` does on a Debian, says so in one line."""
    names = [path.name for path in (_ROOT / "scripts").iterdir() if os.access(path, os.X_OK)]
    for name in (*names, "help.bash"):
        _copy(f"scripts/{name}", tmp_path)
    _write_script(tmp_path / "by-dash", 'exec dash "$@"')
    for name in names:
        script = str(tmp_path / "scripts" / name)
        assert await _run(tmp_path / "by-dash", script) == (2, f"run it with bash: {script}\n")


async def test_run_once(tree: Path) -> None:
    """`scripts/run --once` sends a code and a mail, and ends with 0.

    It takes no port that another program may want at that moment, and prints no commands for a socket that is gone.
    """
    _write_script(tree / "scripts/venv", "exit 0")
    code, out = await _run(tree / "scripts/run", "--once")
    assert code == 0, out
    assert out.splitlines()[-1] == "--- all of it worked"
    assert out.startswith("otpmail dev serves on unix:")
    assert "otpmail.sock" in out
    assert ":40701" not in out
    assert "--server" not in out
    assert ": code relayed" not in out  # the mail is shown


@pytest.mark.parametrize(
    ("sign", "code", "in_env_file"), [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "no assignment\n")]
)
async def test_run_until_a_signal(tree: Path, sign: signal.Signals, code: int, in_env_file: str) -> None:
    """`scripts/run` calls the service at the address that it has, says at last what to try, and ends by the signal."""
    _write_script(tree / "scripts/venv", "exit 0")
    if in_env_file:
        (tree / ".env").write_text(in_env_file)
    process = await _start(tree / "scripts/run", HOST="127.0.0.2", PORT="0", LOG_LEVEL="error")
    lines = await _lines_until(process, "  curl ")
    assert "stays up on 127.0.0.2:" in lines[-7]
    url = lines[-6].removeprefix("The inbox, with the code and the mail: ").strip()
    where, program = (", in a directory without .env", f"{tree}/") if in_env_file else ("", "")
    assert lines[-5] == f"In another terminal{where}:\n"
    assert lines[-4].startswith(f"  {program}.venv/bin/otpmail code send ada@example.org --server 127.0.0.2:")
    assert lines[-1].endswith(f" {url}/otpmail.v1.OtpService/SendCode\n")
    assert [mail["to"] for mail in (await request(url, "/inbox")).json["mails"]] == [
        ["grace@example.org"],
        ["ada@example.org"],
    ]
    process.send_signal(sign)
    await process.communicate()
    assert await process.wait() == code


async def _lines_until(process: asyncio.subprocess.Process, words: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(60):
        while not lines or words not in lines[-1]:
            assert not process.stdout.at_eof(), lines
            lines.append((await process.stdout.readline()).decode())
    return lines


@pytest.mark.parametrize(
    ("signs", "code"),
    [
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGTERM, signal.SIGINT), 143),
        ((signal.SIGHUP, signal.SIGHUP, signal.SIGINT), 129),
    ],
)
async def test_run_passes_every_signal_on(tree: Path, signs: tuple[signal.Signals, ...], code: int) -> None:
    """`scripts/run` waits for its service to drain, passes a second signal on to it, and ends after the service."""
    _write_script(tree / "scripts/venv", "exit 0")
    address = {"HOST": "127.0.0.1", "PORT": "0", "LOG_LEVEL": "info"}
    process = await _start(tree / "scripts/run", LAMEDUCK_SECONDS="90", **address)
    lines = await _lines_until(process, "  curl ")
    port = int(lines[-4].rpartition(":")[2])
    process.send_signal(signs[0])
    await _lines_until(process, "stopping")
    for sign in signs[1:]:
        assert process.returncode is None
        socket.create_connection(("127.0.0.1", port), 10).close()  # the service still drains
        process.send_signal(sign)
    async with asyncio.timeout(30):  # the pipe ends when no process holds it any more
        await process.communicate()
    assert process.returncode == code
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


async def test_the_first_signal_decides(tree: Path) -> None:
    """`scripts/run` ends by its first signal, also where the second one comes before the script has gone on."""
    _write_script(tree / "scripts/venv", "exit 0")
    passing_on = 'kill -s "$2" "$service" 2>/dev/null || true'
    script = tree / "scripts/run"
    assert script.read_text().count(passing_on) == 1
    script.write_text(script.read_text().replace(passing_on, f"{passing_on}; sleep 1"))
    process = await _start(script, LAMEDUCK_SECONDS="90", HOST="127.0.0.1", PORT="0", LOG_LEVEL="info")
    await _lines_until(process, "  curl ")
    process.send_signal(signal.SIGTERM)
    await _lines_until(process, "stopping")
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        await process.communicate()
    assert process.returncode == 143


async def test_run_where_the_service_ends(tree: Path) -> None:
    """If `otpmail dev` ends, `scripts/run` says so at once, below the service's own message."""
    _write_script(tree / "scripts/venv", "exit 0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out = await _run(tree / "scripts/run", PORT=str(taken.getsockname()[1]))
    assert code == 1
    own, ours = out.splitlines()
    assert own.startswith("PORT: ")
    assert ours == "scripts/run: otpmail dev ended; its message stands above"


_OF_A_SERVICE = """
EMAIL_HOST=smtp.example.org
CALLERS_FILE=absent.toml
TLS_CERT_FILE=absent.pem
TLS_KEY_FILE=absent.key
TLS_CLIENT_CA_FILE=absent.pem
HEALTH_OPEN=false
OTPMAIL_TOKEN=of-another-service
OTPMAIL_CA_FILE=absent.pem
OTPMAIL_SERVER=127.0.0.1:1
no assignment
"""


async def test_run_with_the_settings_of_a_service(tree: Path) -> None:
    """`scripts/run` works whatever .env holds, and without the callers and the TLS of its environment."""
    _write_script(tree / "scripts/venv", "exit 0")
    (tree / ".env").write_text(_OF_A_SERVICE)
    code, out = await _run(
        tree / "scripts/run", "--once", CALLERS_FILE="absent.toml", TLS_CERT_FILE="absent.pem", OTPMAIL_TOKEN="absent"
    )
    assert (code, out.splitlines()[-1]) == (0, "--- all of it worked"), out
    assert out.startswith("scripts/run: ignores .env")


async def test_run_says_why_a_code_was_not_sent(tree: Path) -> None:
    """If the code is not sent, the last line has the words of the command."""
    _write_script(tree / "scripts/venv", "exit 0")
    refuses = '[ "$1" != code ] || { echo "PERMISSION_DENIED: not you" >&2; exit 3; }'
    _write_script(tree / ".venv/bin/otpmail", f'{refuses}\nexec {_INTERPRETER} -m otpmail "$@"')
    code, out = await _run(tree / "scripts/run", "--once")
    assert code == 1
    assert "scripts/run: the code was not sent: PERMISSION_DENIED: not you" in out.splitlines()


async def test_venv_without_the_interpreter(tree: Path) -> None:
    """If there is no interpreter PYTHON, one line names it."""
    code, out = await _run(tree / "scripts/venv", PYTHON="python3.99")
    assert code == 1
    assert out == "otpmail needs Python 3.11 or later; there is no python3.99 here. Set PYTHON to another.\n"


_SHIM = 'echo "pyenv: python3.12: command not found" >&2; echo "It is in: 3.12.4" >&2; exit 127'


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (_SHIM, "{} does not run: pyenv: python3.12: command not found"),
        ("exit 1", "{} does not run"),
        ("echo 3.9.2 False", "{} is Python 3.9.2"),
    ],
)
async def test_venv_by_an_interpreter_that_will_not_do(tree: Path, does: str, said: str) -> None:
    """One line tells an interpreter that does not run, with the first words of it, from one that is too old."""
    _write_script(tree / "python", does)
    python = str(tree / "python")
    line = f"otpmail needs Python 3.11 or later; {said.format(python)}. Set PYTHON to another.\n"
    assert await _run(tree / "scripts/venv", PYTHON=python) == (1, line)


_PYTHON = """
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; touch "$3/pyvenv.cfg" "$3/pip"; cp "$0" "$3/bin/python" ;;
  "-m pip --version") test -e "${0%/bin/python}/pip" ;;
  "-m pip install "*) exit "$PIP_STATUS" ;;
  *) exec INTERPRETER "$@" ;;
esac
"""


async def test_an_interrupted_venv_is_made_anew(tree: Path) -> None:
    """`scripts/venv` replaces an environment without pip, and one that pip did not finish; a whole one stays."""
    _copy("requirements/run.txt", tree)
    _write_script(tree / "python", _PYTHON.replace("INTERPRETER", _INTERPRETER))
    install = partial(_run, tree / "scripts/venv", VENV="made", PYTHON=str(tree / "python"))
    made, left = tree / "made", tree / "made/left"
    assert (await install(PIP_STATUS="0"))[0] == 0
    (made / "pip").unlink()  # Ctrl-C came before it
    (made / ".installed-run").unlink()
    for pip_status, stays in (("1", False), ("0", False), ("1", True)):
        left.touch()
        assert (await install("test", PIP_STATUS=pip_status))[0] == int(pip_status)
        assert left.exists() is stays
        with (tree / "pyproject.toml").open("a") as changed:
            changed.write("# new\n")


async def test_ci_says_that_it_is_ci(tree: Path) -> None:
    """`.ci/run` is `scripts/test` with CI=true, also where CI is not set."""
    _write_script(tree / "scripts/test", 'echo "CI=$CI"')
    assert await _run(tree / ".ci/run") == (0, "CI=true\n")


@pytest.fixture
def stubs(tree: Path) -> Path:
    """A tree in which each command of `scripts/test` only prints its name and arguments."""
    for name in (
        *("venv", "install-servers", "generate", "contract"),
        *("test-pythons", "attacks", "faults", "browser", "bench"),
    ):
        _write_script(tree / "scripts" / name, f'echo "{name} $*"')
    for name in ("ruff", "mypy", "lint-imports", "python"):
        _write_script(tree / ".venv/bin" / name, f'echo "{name} $*"')
    return tree


async def test_test_prints_one_line_for_each_step(stubs: Path) -> None:
    """`scripts/test` prints one line for each step that is good; CI=true adds the other Pythons."""
    steps = [
        "venv test",
        "install-servers ",
        "generated code: good",
        "contract ",
        *(f"{name}: good" for name in ("format", "lint", "types", "import rules")),
        (
            "python -m pytest --numprocesses 4 --dist worksteal "
            "--ignore tests/attacks --ignore tests/faults --ignore tests/browser"
        ),
        "attacks --quick",
        "faults --quick",
        "browser --quick",
        "benchmarks: good",
    ]
    code, out = await _run(stubs / "scripts/test")
    assert (code, out.splitlines()) == (0, steps)
    code, out = await _run(stubs / "scripts/test", CI="true")
    assert (code, out.splitlines()) == (0, [*steps[:-1], "test-pythons ", steps[-1]])


async def test_test_shows_the_output_of_a_failed_step(stubs: Path) -> None:
    """A failed step ends `scripts/test` with 1; its output comes before the line that names it."""
    _write_script(stubs / ".venv/bin/mypy", "echo an error >&2; exit 3")
    code, out = await _run(stubs / "scripts/test")
    assert (code, out.splitlines()[-3:]) == (1, ["lint: good", "an error", "types: FAILED"])


async def test_arguments_of_test_go_to_pytest(stubs: Path) -> None:
    """With arguments, pytest is the last step."""
    code, out = await _run(stubs / "scripts/test", "-k", "two words")
    assert (code, out.splitlines()[-1]) == (0, "python -m pytest -k two words")


def _stand_still_before(script: Path, line: str) -> None:
    """Let a script wait a second before this line of it, as on a busy machine."""
    text = script.read_text()
    assert text.count(f"\n  {line}\n") == 1
    script.write_text(text.replace(f"\n  {line}\n", f"\n  sleep 1; {line}\n"))


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_signal_ends_test_and_its_step(stubs: Path, *, is_slow: bool) -> None:
    """SIGTERM ends `scripts/test` and the processes of the step that runs, also of one that has just begun."""
    if is_slow:
        _stand_still_before(stubs / "scripts/test", "running=$!")
    _write_script(stubs / ".venv/bin/mypy", f'echo "$$" >"{stubs}/pid-1"; sleep 1000 | cat')
    process = await _start(stubs / "scripts/test")
    async with asyncio.timeout(60):
        while not _written(stubs):  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        await process.communicate()  # ends when no process holds the output any more
        while any(_runs(pid) for pid in _written(stubs)):  # noqa: ASYNC110  nothing to await
            await asyncio.sleep(0.01)
    assert process.returncode == 143


async def test_other_pythons(tree: Path) -> None:
    """`scripts/test-pythons` runs the tests with a Python that is installed, and names one that is not."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    other, missing = (version for version in ("3.11", "3.12", "3.13") if version != own)
    _write_script(tree / f"pyenv/versions/{other}.1/bin/python", "exit 0")
    _write_script(tree / f"bin/python{missing}", "exit 127")  # as pyenv's command for a version that is not selected
    environment = {"PATH": f"{tree}/bin:{os.environ['PATH']}", "PYENV_ROOT": f"{tree}/pyenv"}
    _write_script(tree / "scripts/venv", f'mkdir -p $VENV/bin; cp "{tree}/pytest" $VENV/bin/python')
    for status, line in ((0, f"Python {other}: good (7 passed in 1 s)"), (1, f"Python {other}: FAILED")):
        _write_script(tree / "pytest", f"echo 7 passed in 1 s; exit {status}")
        code, out = await _run(tree / "scripts/test-pythons", **environment)
        assert code == status
        assert line in out.splitlines()
        assert f"Python {missing}: not installed here, skipped" in out.splitlines()


def _written(tree: Path) -> list[int]:
    return [int(written) for file in tree.glob("pid-*") if (written := file.read_text().strip())]


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_signal_ends_other_pythons(tree: Path, *, is_slow: bool) -> None:
    """SIGTERM ends `scripts/test-pythons` and the tests that run under each Python, also those that have just begun."""
    if is_slow:
        _stand_still_before(tree / "scripts/test-pythons", "running[$version]=$!")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = [version for version in ("3.11", "3.12", "3.13") if version != own]
    for version in others:
        _write_script(tree / f"pyenv/versions/{version}.1/bin/python", "exit 0")
        _write_script(tree / f"bin/python{version}", "exit 127")
    _write_script(tree / "scripts/venv", f'mkdir -p $VENV/bin; cp "{tree}/pytest" $VENV/bin/python')
    _write_script(tree / "pytest", f'echo "$$" >"$(mktemp "{tree}/pid-XXXX")"; sleep 1000 | cat')
    path = f"{tree}/bin:{os.environ['PATH']}"
    process = await _start(tree / "scripts/test-pythons", PATH=path, PYENV_ROOT=f"{tree}/pyenv")
    async with asyncio.timeout(60):
        while len(_written(tree)) < len(others):  # noqa: ASYNC110  other processes write them
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        while any(_runs(pid) for pid in _written(tree)):  # noqa: ASYNC110  nothing to await
            await asyncio.sleep(0.01)
    assert process.returncode == 143


@pytest.mark.parametrize(("name", "limits"), [("attacks", (600, 1800)), ("faults", (900, 3600))])
async def test_attacks_and_faults_in_full_and_quick(tree: Path, name: str, limits: tuple[int, int]) -> None:
    """The scripts ask pytest for the full tests, with --quick for the short ones; other arguments follow."""
    _write_script(tree / "scripts/venv", "exit 0")
    _write_script(tree / ".venv/bin/python", 'echo "$*"')
    full, quick = [await _run(tree / "scripts" / name, *given, "-k", "x") for given in ((), ("--quick",))]
    assert full == (0, "-m pytest tests/{} --full --timeout {} --session-timeout {} -k x\n".format(name, *limits))
    assert quick == (0, f"-m pytest tests/{name} --timeout 300 --session-timeout 900 -k x\n")


async def test_lock_writes_both_locks_and_checks_them(tree: Path) -> None:
    """`scripts/lock` writes the lock of the service and that of its build; with --check it only compares them."""
    _write_script(tree / "scripts/venv", "exit 0")
    _write_script(tree / ".venv-tools/bin/python", f'exec {_INTERPRETER} "$@"')
    uv = (
        'while [ $# -gt 1 ]; do [ "$1" != --output-file ] || out=$2; shift; done; { echo "# of uv"; cat "$1"; } >"$out"'
    )
    _write_script(tree / ".venv-tools/bin/uv", uv)
    locks = tree / "requirements"
    locks.mkdir()
    (locks / "run.txt").write_text("old")
    code, out = await _run(tree / "scripts/lock", "--check")
    assert (code, out.splitlines()[-1]) == (1, "the locks do not fit pyproject.toml: run scripts/lock")
    assert (locks / "run.txt").read_text() == "old"
    assert await _run(tree / "scripts/lock") == (0, "")
    assert (locks / "run.txt").read_text() == "# of uv\n" + (tree / "pyproject.toml").read_text()
    assert (locks / "build.txt").read_text().startswith("# of uv\nhatchling")
    assert await _run(tree / "scripts/lock", "--check") == (0, "")


_NO_CHROMIUM = "browser: Chromium is not installed here, and to install it needs root and apt-get; skipped"
_EVERYWHERE = (
    *("bash", "cat", "cksum", "cp", "dirname", "env", "find", "flock", "git", "grep", "id", "kill", "mkdir", "mktemp"),
    *("mv", "realpath", "rm", "sed", "sleep", "sort", "timeout", "touch", "tr"),
)


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with Python, bash, git and what every Linux has, and nothing else: no apt, npm, Docker or server."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    for name in _EVERYWHERE:
        found = shutil.which(name)
        assert found is not None, name
        (programs / name).symlink_to(found)
    return str(programs)


async def test_run_needs_nothing_but_python(tree: Path, bare_path: str) -> None:
    """`scripts/run --once` works on a machine with no other program than Python and those of every Linux."""
    _write_script(tree / "scripts/venv", "exit 0")
    code, out = await _run(tree / "scripts/run", "--once", PATH=bare_path)
    assert (code, out.splitlines()[-1]) == (0, "--- all of it worked")


async def test_venv_needs_nothing_but_python(tree: Path, bare_path: str) -> None:
    """`scripts/venv` makes an environment with Python and pip alone."""
    _copy("requirements/run.txt", tree)
    _write_script(tree / "python", _PYTHON.replace("INTERPRETER", _INTERPRETER))
    code, out = await _run(
        tree / "scripts/venv", VENV="made", PYTHON=str(tree / "python"), PIP_STATUS="0", PATH=bare_path
    )
    assert (code, "not found" in out) == (0, False), out


async def test_test_needs_nothing_but_python(stubs: Path, bare_path: str) -> None:
    """`scripts/test` names the servers that it can't install and what it skips for them, and runs all other steps."""
    for name in ("install-servers", "contract", "browser", "chromium.bash"):
        _copy(f"scripts/{name}", stubs)
    (stubs / "protos").mkdir()
    code, out = await _run(stubs / "scripts/test", PATH=bare_path)
    assert (code, out.splitlines()[-1]) == (0, "benchmarks: good"), out
    assert "install-servers: Exim cannot be installed" in out
    assert "contract: npm is not installed here, skipped" in out
    assert _NO_CHROMIUM in out.splitlines()
    assert "not found" not in out


async def test_ci_needs_chromium(stubs: Path, bare_path: str) -> None:
    """With CI=true `scripts/browser` fails where there is no Chromium, and it can't be installed."""
    for name in ("browser", "chromium.bash"):
        _copy(f"scripts/{name}", stubs)
    script = stubs / "scripts/browser"
    assert await _run(script, "--quick", PATH=bare_path) == (0, f"{_NO_CHROMIUM}\n")
    assert await _run(script, "--quick", PATH=bare_path, CI="true") == (1, f"{_NO_CHROMIUM}\n")


async def test_arguments_of_browser(stubs: Path) -> None:
    """`scripts/browser` hands its arguments to pytest, and takes none beside --pictures, which it says at once."""
    for name in ("browser", "chromium.bash"):
        _copy(f"scripts/{name}", stubs)
    _write_script(stubs / "bin/chromium", "exit 0")
    run = partial(_run, stubs / "scripts/browser", PATH=f"{stubs}/bin:{os.environ['PATH']}")
    pytest_of = "venv browser\npython -m pytest tests/browser --numprocesses 2"
    assert await run() == (0, f"{pytest_of} --full\n")
    assert await run("-k", "page") == (0, f"{pytest_of} --full -k page\n")
    assert await run("--quick", "-x") == (0, f"{pytest_of} -x\n")
    assert await run("--pictures") == (0, "venv browser\npython tests/browser/take.py\n")
    assert await run("--pictures", "-k", "page") == (2, "usage: scripts/browser --pictures\n")


async def test_browser_tests_without_a_browser(bare_path: str) -> None:
    """Where pytest collects no test of the browser, for want of one, it says which script runs them."""
    pytest_of = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/browser", "-k", "page"),
        cwd=_ROOT,
        env={"PATH": bare_path},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(pytest_of.communicate(), 60)
    line = "tests/browser: needs Playwright and Chromium; scripts/browser installs and runs it"
    assert (pytest_of.returncode, line in out.decode().splitlines()) == (5, True), out.decode()
