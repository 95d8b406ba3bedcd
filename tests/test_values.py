"""Values: compared by their fields, without a dict, and frozen for the type checker."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from otpmail.model import RecipientResult
from otpmail.values import frozen


@frozen(kw_only=True)
class Sample:
    """A value."""

    name: str
    size: int = 0


def test_values_are_compared_and_hashed_by_their_fields() -> None:
    """Two values with equal fields are equal, in a set too; a changed copy is not."""
    assert Sample(name="a", size=1) == Sample(name="a", size=1)
    assert len({Sample(name="a"), Sample(name="a"), replace(Sample(name="a"), size=2)}) == 2
    assert not hasattr(Sample(name="a"), "__dict__")
    assert RecipientResult("a@x.org", 250) == RecipientResult("a@x.org", 250)


def test_the_type_checker_refuses_a_change(tmp_path: Path) -> None:
    """mypy, which `scripts/test` runs over everything, refuses to change a value or to make one with a wrong field."""
    pytest.importorskip("mypy", reason="scripts/test-pythons installs no type checker")
    (tmp_path / "change.py").write_text(
        "from otpmail.model import RecipientResult\n"
        'result = RecipientResult("a@x.org", code=250)\n'
        "result.code = 550\n"
        'RecipientResult(address="a@x.org", colour=1)\n'
    )
    source = Path(__file__).parents[1] / "src"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "change.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Property "code" defined in "RecipientResult" is read-only' in checked.stdout
    assert 'Unexpected keyword argument "colour"' in checked.stdout
