"""The locks of the image: whole, with hashes only, and in step with pyproject.toml."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
WANTED = {
    "run": [*PROJECT["project"]["dependencies"], *EXTRAS["server"]],
    "build": PROJECT["build-system"]["requires"],
}


def entries(lock: str) -> list[str]:
    """Return the entries of a lock, each on one line: a requirement and its options."""
    text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8")
    return re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()


def locked(lock: str) -> dict[str, str]:
    """Return each package that a lock has for this machine, with its version."""
    pinned = [Requirement(entry.partition(" --hash")[0]) for entry in entries(lock)]
    return {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in pinned
        if requirement.marker is None or requirement.marker.evaluate()
    }


@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_has_what_pyproject_wants(lock: str) -> None:
    """A lock has each requirement of pyproject.toml, in a version that pyproject.toml permits."""
    for requirement in map(Requirement, WANTED[lock]):
        version = locked(lock)[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, but {version} is locked: run scripts/lock"


def test_a_lock_has_what_its_packages_want() -> None:
    """Each package of the lock finds what it requires in the lock, in a version that it permits."""
    versions = locked("run")
    for package in versions:
        for requirement in map(Requirement, requires(package) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_has_versions_and_hashes_only(lock: str) -> None:
    """Each entry of a lock is a version with SHA-256 hashes: no option, no address, no package without a hash."""
    for entry in entries(lock):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+ *", entry), entry


def test_a_package_whose_private_attributes_are_read_has_an_upper_bound() -> None:
    """The next minor release of aiosmtplib, whose private buffer `relays/handover.py` reads, does not fit."""
    (bounded,) = (Requirement(line) for line in WANTED["run"] if line.startswith("aiosmtplib"))
    major, minor, *_ = locked("run")["aiosmtplib"].split(".")
    assert not bounded.specifier.contains(f"{major}.{int(minor) + 1}.0")


def test_the_image_takes_nothing_without_a_hash() -> None:
    """Each stage of the image builds on BASE, and pip installs by hash, or without an index and dependencies."""
    commands = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    assert {line.split()[1] for line in commands if line.startswith("FROM ")} == {"${BASE}"}
    installs = [
        part for line in commands for part in line.split("&&") if re.search(r"bin/pip .*(install|wheel) ", part)
    ]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or {"--no-deps", "--no-index"} <= set(install.split()), install


def test_the_image_has_what_the_wheel_is_made_of() -> None:
    """`.dockerignore` lets through each folder that the wheel takes, `src` and the protos among them."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    admitted = [line.removeprefix("!") for line in lines if line.startswith("!")]
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source in (*wheel["packages"], *wheel["force-include"]):
        assert any(f"{source}/".startswith(f"{name}/") for name in admitted), source
