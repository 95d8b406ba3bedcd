"""The files of deploy/ as Python's values, and the settings that a container there gives otpmail."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from otpmail.settings import Settings
from otpmail.settings.loader import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
NAMES = frozenset(name for section in SECTIONS for name in section.variables()) | {"SECRETS_DIR"}
"""The names that a container's environment may set: a mistyped one would go unseen, as those of other programs do."""
SECRETS = frozenset(name for section in SECTIONS for name in section.secrets())

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """Return the documents of a YAML file."""
    return [cast("Document", document) for document in yaml.safe_load_all(path.read_text("utf-8"))]


def manifests() -> Iterator[tuple[str, Document]]:
    """Yield each document for Kubernetes with the name of its file; the kustomization is for a tool of its own."""
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in documents(path):
                yield path.name, document


def containers(document: Document) -> list[Document]:
    """Return the containers of a document's pod, sidecars included; none where it has no pod."""
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def otpmail_container(file: str) -> Document:
    """Return the container of a manifest that runs otpmail."""
    (found,) = (
        container
        for document in documents(KUBERNETES / file)
        for container in containers(document)
        if container["name"] == "otpmail"
    )
    return found


def environment(container: Document) -> dict[str, str]:
    """Return the values in a container's `env`."""
    return {entry["name"]: entry["value"] for entry in container["env"]}


def load_settings(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str], secrets: Path, here: Path) -> Settings:
    """Load the settings as a process with this environment, these secrets and an empty directory does."""
    monkeypatch.chdir(here)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in (*given.items(), ("SECRETS_DIR", str(secrets))):
        monkeypatch.setenv(name, value)
    return Settings.load()


def make_secrets(here: Path) -> Path:
    """Run a copy of deploy/make-secrets and return the folder that it made."""
    script = here / "make-secrets"
    script.write_bytes((DEPLOY / "make-secrets").read_bytes())
    script.chmod(0o755)
    subprocess.run([script], check=True, capture_output=True)
    return here / "secrets"
