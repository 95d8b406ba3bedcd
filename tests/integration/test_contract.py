"""`scripts/contract`: what it lets through, in a copy of protos/ with the buf that npm installs for the whole tree."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def buf() -> Path:
    """The modules with buf, as the first run of the script installs them."""
    if shutil.which("npm") is None:
        message = "npm is not installed: see scripts/install-servers"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    code, out = asyncio.run(_run(ROOT))
    assert code == 0, out
    return ROOT / "protos/node_modules"


@pytest.fixture
def tree(tmp_path: Path, buf: Path) -> Path:
    """A tree with the script and the contract, to be changed."""
    (tmp_path / "scripts").mkdir()
    for name in ("contract", "help.bash"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "protos/node_modules").symlink_to(buf)
    return tmp_path


async def _run(tree: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        tree / "scripts/contract",
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 100)
    return process.returncode or 0, out.decode()


def _change(tree: Path, old: str, new: str, name: str = "v1/mail.proto") -> None:
    path = tree / "protos/otpmail" / name
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  // The subject.\n", "", 'Field "subject" should have a non-empty comment'),
        ("STATE_PARTIAL", "PARTIAL", 'Enum value name "PARTIAL" should be prefixed with "STATE_"'),
        ("string subject", "string Subject", 'Field name "Subject" should be lower_snake_case'),
        ("string subject = 4;", "string  subject = 4;", "-  string  subject = 4;"),
    ],
    ids=["comment", "prefix", "name", "format"],
)
async def test_a_contract_in_another_style_is_refused(tree: Path, old: str, new: str, said: str) -> None:
    """A field without a comment, a value without its prefix, an odd name and an odd format are named."""
    _change(tree, old, new)
    code, out = await _run(tree)
    assert code != 0
    assert said in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("string subject = 4;", "bytes subject = 4;", 'Field "4" with name "subject" on message "SendMailRequest"'),
        ("string subject = 4;", "string subject = 90;", 'Previously present field "4" with name "subject"'),
        ("string subject = 4;", "string title = 4;", 'changed name from "subject" to "title"'),
        ("STATE_PARTIAL = 4;", "STATE_SOME = 4;", 'changed name from "STATE_PARTIAL" to "STATE_SOME"'),
        ("  rpc GetMail(GetMailRequest) returns (Mail);\n", "", 'Previously present RPC "GetMail"'),
    ],
    ids=["type", "number", "field", "value", "method"],
)
async def test_a_change_that_breaks_clients_is_refused(tree: Path, old: str, new: str, said: str) -> None:
    """A part that clients use can't be changed or taken away, and --accept does not accept that either."""
    accepted = (tree / "protos/accepted.txtpb").read_bytes()
    _change(tree, old, new)
    for arguments in ((), ("--accept",)):
        code, out = await _run(tree, *arguments)
        assert code != 0
        assert said in out
    assert (tree / "protos/accepted.txtpb").read_bytes() == accepted


async def test_the_contract_of_the_original_is_guarded_too(tree: Path) -> None:
    """A change of package `mail` is refused, though its names are not those of buf."""
    _change(tree, "string otpCode = 2;  //", "string otp_code = 2;  //", "original/mail.proto")
    code, out = await _run(tree)
    assert code != 0
    assert 'changed name from "otpCode" to "otp_code"' in out


async def test_what_is_added_is_accepted_once(tree: Path) -> None:
    """A new field breaks nothing: it has to be accepted, and is guarded from then on."""
    _change(tree, "  string subject = 4;\n", "  string subject = 4;\n  // New.\n  string title = 90;\n")
    code, out = await _run(tree)
    assert (code, out.splitlines()[-1]) == (
        1,
        "contract: it has grown: run scripts/contract --accept, so that nothing of it is taken back later",
    )
    assert await _run(tree, "--accept") == (0, "contract: good\n")
    assert await _run(tree) == (0, "contract: good\n")
    _change(tree, "  // New.\n  string title = 90;\n", "")
    code, out = await _run(tree)
    assert code != 0
    assert 'Previously present field "90" with name "title"' in out


async def test_a_break_on_purpose(tree: Path) -> None:
    """Without an accepted contract the check fails, and --accept writes one that may differ from the last."""
    _change(tree, "string subject = 4;", "string title = 4;")
    (tree / "protos/accepted.txtpb").unlink()
    assert (await _run(tree))[0] != 0
    assert await _run(tree, "--accept") == (0, "contract: good\n")


async def test_a_machine_without_npm(tree: Path) -> None:
    """Without npm nothing is checked, and in CI that is a failure."""
    (tree / "bin").mkdir()
    for program in ("bash", "dirname"):
        (tree / "bin" / program).symlink_to(shutil.which(program) or "")
    for ci, status in (("", 0), ("true", 1)):
        code, out = await _run(tree, PATH=str(tree / "bin"), CI=ci)
        assert (code, out) == (status, "contract: npm is not installed here, skipped\n")
