"""Fixtures for the whole suite: a relay whose faults a test's marker chooses, and the service connected to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import settings

from attacks.options import add_options
from redis_server import KINDS, RedisServer
from relay import Certificates, Faults, Relay
from run_folder import make_run_folder
from service import Service, relay_settings
from surroundings import forget_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

_PROCESS_TESTS = {
    "attacks",
    "browser",
    "deployment",
    "examples",
    "faults",
    "integration",
}  # folders whose tests start the service
_RUN_FOLDER = pytest.StashKey["Path"]()
_KEEPS_FOLDER = pytest.StashKey[bool]()
_MARKERS = (
    "full: an attack or a fault that runs with --full only",
    "one_contract: an attack whose outcome does not depend on the contract that ours is called by",
    "one_store: an attack whose outcome does not depend on the store of the service",
    "ours: an attack that reads the log or the store of a process, which a foreign target does not show",
    "one_loop: runs on uvloop alone, since it takes long, or waits for a process, the end of a lease or the like",
    "relay(**faults): what the `relay` fixture offers and where it fails; see relay.Faults",
    "requests(seconds, most): for how long the `mails` fixture keeps request ids, and how many",
    "v1: an attack by means that otpmail.v1 alone has",
    "service(wait=True, **settings): settings of the `service` fixture; wait=False does not wait until it serves",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --full, and the options of a foreign target for tests/attacks."""
    parser.addoption(
        "--full", action="store_true", help="run each attack and each fault in full, not in its short form"
    )
    add_options(parser)


@pytest.hookimpl(tryfirst=True)  # the plugin of `tmp_path` reads --basetemp in this hook
def pytest_configure(config: pytest.Config) -> None:
    """Register our markers, and end at SIGTERM and SIGHUP as at Ctrl-C: fixtures then end what they have started.

    A shell starts what runs in its background with SIGINT ignored, and the processes of the tests would inherit that.
    No example of a property has a time limit: on a busy machine any may take long. The run has a folder of its own, and
    no setting of its environment reaches a test.
    """
    forget_settings(os.environ, of_client=not config.getoption("--target"))
    if config.option.basetemp is None:
        config.option.basetemp = config.stash[_RUN_FOLDER] = make_run_folder()
        config.add_cleanup(lambda: _remove_run_folder(config))  # also of a run that ends before its session
    for sign in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) is signal.SIG_DFL:
            signal.signal(sign, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("any machine", settings(), deadline=None)
    settings.load_profile("any machine")
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave the folder of a run in which a test has failed."""
    if exitstatus in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}:
        session.config.stash[_KEEPS_FOLDER] = True


def _remove_run_folder(config: pytest.Config) -> None:
    if not config.stash.get(_KEEPS_FOLDER, False):
        shutil.rmtree(config.stash[_RUN_FOLDER], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that have no short form, unless --full is given."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 -- the hook's signature
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run a test on both loops, unless it starts the service: that has its loop in a process of its own."""
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    if "service" in fixtures or _PROCESS_TESTS.intersection(item.path.parts):
        return {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("one_loop"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether a test runs in full: it then takes more requests, more mails or more time, by the same rule."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="session", params=KINDS)
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Start each kind of Redis and Valkey in turn. All tests share it, so each uses keys of its own."""
    with RedisServer(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """Start one Redis. All tests share it, so each has a namespace of its own (`guaranteed.redis_settings`)."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the test in an empty directory, so that no `.env` gives it settings."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make one certificate authority for the run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def relay(request: pytest.FixtureRequest, certificates: Certificates) -> AsyncIterator[Relay]:
    """Start a relay with the faults of `@pytest.mark.relay(...)`."""
    async with Relay(Faults(**_keywords(request, "relay")), certificates=certificates) as relay:
        yield relay


@pytest.fixture
async def service(
    request: pytest.FixtureRequest, relay: Relay, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[Service]:
    """Start the service, connected to `relay`, with the settings of `@pytest.mark.service(...)`."""
    settings = _keywords(request, "service")
    wait = settings.pop("wait", True)
    async with Service(**relay_settings(relay, certificates, tmp_path / "token") | settings) as service:
        if wait:
            await service.wait_until_serving()
        yield service


def _keywords(request: pytest.FixtureRequest, marker: str) -> dict[str, Any]:
    """Merge the markers of that name, the one nearest to the test last."""
    keywords: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers(marker))):
        keywords |= mark.kwargs
    return keywords
