"""The option and the fixtures that all benchmarks share."""

import pytest

from benchmarks.processes import Certificates
from benchmarks.results import Results


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption("--quick", action="store_true", help="a few seconds each, and promises held with a wide margin")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give benchmarks more time than tests have."""
    for item in items:
        item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether the run is to be short."""
    return bool(request.config.getoption("--quick"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make one certificate authority for the run."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def results(request: pytest.FixtureRequest, quick: bool) -> Results:  # noqa: FBT001  pytest passes fixtures so
    """Where the benchmark writes what it measured."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    return Results(request.path.stem.removeprefix("test_"), capture.global_and_fixture_disabled, quick=quick)
