"""How long an attack lasts: a short form for every day, and the full one with --full."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --full."""
    parser.addoption("--full", action="store_true", help="run each attack in full, not in its short form")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of attacks that have no short form."""
    config.addinivalue_line("markers", "full: an attack that runs with --full only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the attacks that have no short form, unless --full is given."""
    if _is_full(config):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether an attack runs in full: it then takes more requests, more mails or more time, by the same rule."""
    return _is_full(pytestconfig)


def _is_full(config: pytest.Config) -> bool:
    # pytest knows the option only where it starts in this folder; elsewhere every attack has its short form.
    return bool(config.getoption("--full", default=False))
