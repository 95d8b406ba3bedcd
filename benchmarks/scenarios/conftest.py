"""The options and the fixtures that all benchmarks share."""

import pytest

from benchmarks.peers.servers import Certificates
from benchmarks.report.results import Results

_SOAK_SECONDS = 600
_QUICK_SOAK_SECONDS = 6
_TIMEOUT_SECONDS = 900  # benchmarks take longer than tests


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick and --soak."""
    parser.addoption("--quick", action="store_true", help="a few seconds each, and promises with a wide margin")
    parser.addoption("--soak", type=float, nargs="?", const=_SOAK_SECONDS, help="the soak alone, for so many seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Set the timeout of benchmarks, and deselect the soak in a full run without --soak."""
    soak = config.getoption("--soak")
    for item in items:
        item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS + (soak or 0)))
    if soak or not config.getoption("--quick"):
        left_out = [item for item in items if (item.path.stem == "test_soak") != bool(soak)]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether the run is to be short."""
    return bool(request.config.getoption("--quick"))


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> float:
    """How many seconds a soak takes."""
    return float(request.config.getoption("--soak") or _QUICK_SOAK_SECONDS)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make one certificate authority for the run."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def results(request: pytest.FixtureRequest, quick: bool) -> Results:  # noqa: FBT001  pytest passes fixtures so
    """Take the results of a benchmark, which is named as its file."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    return Results(request.path.stem.removeprefix("test_"), capture.global_and_fixture_disabled, quick=quick)
