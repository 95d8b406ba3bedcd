"""Tests of settings see an environment of their own, and no `.env` but the one they write."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import Settings

Load = Callable[..., Settings]
Problems = Callable[..., tuple[str, ...]]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave in the environment only what a test sets, and start in an empty directory."""
    for name in list(os.environ):
        if not name.startswith("PYTEST"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMAIL_FROM", "shop@example.org")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load all settings with these variables in the environment."""

    def load(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Settings.load()

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Return the lines with which a load fails that has these variables in the environment."""

    def problems(**variables: str) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as caught:
            load(**variables)
        return caught.value.problems

    return problems
