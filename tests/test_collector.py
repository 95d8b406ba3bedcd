"""When the garbage collector of the process runs."""

import gc
from collections.abc import Iterator

import pytest

from otpmail.collector import pausing_the_collector, spare_the_collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the collector of the test run as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_no_collections_during_imports() -> None:
    """Nothing is collected meanwhile, and what was made is exempt after that."""
    gc.unfreeze()
    with pausing_the_collector():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_collections_go_on_after_a_failed_import() -> None:
    """An import that fails leaves no process without a collector."""
    with pytest.raises(ImportError), pausing_the_collector():
        raise ImportError
    assert gc.isenabled()


def test_a_service_collects_rarely() -> None:
    """A service that is ready collects young objects only now and then, and never what it was built of."""
    spare_the_collector()
    assert gc.isenabled()
    assert gc.get_threshold()[0] >= 2000
    assert gc.get_freeze_count() > 1000
