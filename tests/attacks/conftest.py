"""The server under attack: with --target somebody's, else ours on each store, started once for all black-box tests."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from attacks.arrival import Unusable, wait_until_usable
from attacks.options import check_options, limits_of, pattern_of
from attacks.probe import LONGEST_TURN, LONGEST_TURN_OF_A_SLOW_MACHINE
from attacks.targets import CONTRACTS, System, Target, through
from redis_server import RedisServer
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

STORES = ("memory", "sqlite", "redis")
"""The stores under ours. On Redis there are two replicas, and calls go to them in turn."""

_LEFT_OUT = pytest.StashKey[int]()
_KEYS = f"k1:{'11' * 32}"


@pytest.fixture(scope="session")
def longest_turn(full: bool) -> float:  # noqa: FBT001  a fixture
    """Seconds that no single request may hold the loop for."""
    return LONGEST_TURN if full else LONGEST_TURN_OF_A_SLOW_MACHINE


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that do not go together."""
    check_options(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Attack each store and each contract of ours, or the one target that is named.

    Marks say what does not depend on the store or on the contract (`one_store`, `one_contract`), or needs `v1`.
    """
    foreign = metafunc.config.getoption("--target")
    if "system" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("one_store")
        ids = ["target"] if foreign else ["memory"] if alone else STORES
        metafunc.parametrize("system", ids, indirect=True, scope="session")
    if "contract" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--contract") or ("v1" if foreign else "")
        metafunc.parametrize("contract", [chosen] if chosen else _contracts(metafunc))


def _contracts(metafunc: pytest.Metafunc) -> list[str]:
    marks = (metafunc.definition.get_closest_marker(name) for name in ("v1", "one_contract"))
    return ["v1"] if any(marks) else list(CONTRACTS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what starts or reads a process of ours, and skip what a foreign target's contract does not have."""
    if not config.getoption("--target"):
        return
    ours = [
        item for item in items if "system" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("ours")
    ]
    config.stash[_LEFT_OUT] = len(ours)
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if item not in ours]
    for item in items:
        if item.get_closest_marker("v1") and config.getoption("--contract") == "original":
            item.add_marker(pytest.mark.skip("it uses what otpmail.v1 alone has"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many tests a foreign target was not asked for."""
    if count := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} tests need a service of ours, and were left out: --target names another")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """Start ours on the store of the parameter, or the relay of the target, for all tests with that parameter."""
    option = request.config.getoption
    shared: dict[str, Any] = {
        "limits": limits_of(request.config),
        "code_pattern": pattern_of(request.config),
    }
    async with AsyncExitStack() as stack:
        if request.param == "target":
            try:
                relay = await _relay_of(option("--relay-listen"), option("--relay-login"), stack)
                foreign = System(addresses=option("--target"), relay=relay, **shared)
                async with through(option("--contract") or "v1", foreign) as first:
                    await wait_until_usable(first)
            except Unusable as error:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
            yield foreign
            return
        relay = await stack.enter_async_context(Relay(Faults(auth=())))
        folder = tmp_path_factory.mktemp("attacked")
        services = [
            await stack.enter_async_context(Service(**relay_settings(relay, certificates, folder / "token") | settings))
            for settings in _settings(request.param, folder, stack)
        ]
        addresses = [service.address for service in services]
        yield System(addresses=addresses, relay=relay, services=services, **shared)


@pytest_asyncio.fixture(loop_scope="session")
async def target(system: System, contract: str) -> AsyncIterator[Target]:
    """Return the system through the contract of the parameter, once it serves."""
    for service in system.services:
        await service.wait_until_serving()  # its relay may have stood still while other tests ran
    async with through(contract, system) as attacked:
        yield attacked


def _settings(store: str, folder: Path, stack: AsyncExitStack) -> list[dict[str, Any]]:
    """Return the settings of each replica: the defaults, with a log that shows most."""
    loud = {"LOG_LEVEL": "debug", "LOG_MAILS": "off"}
    if store == "memory":
        return [loud]
    durable = loud | {"OTP_KEYS": _KEYS}
    if store == "sqlite":
        return [durable | {"STORE_URL": f"sqlite:{folder / 'store.db'}"}]
    server = stack.enter_context(RedisServer())
    return [durable | {"STORE_URL": server.url}] * 2


async def _relay_of(listen: str | None, login: tuple[str, str] | None, stack: AsyncExitStack) -> Relay | None:
    """Listen as the relay of the target; None without --relay-listen. Raises Unusable where the port is taken."""
    if not listen:
        return None
    host, _, port = listen.rpartition(":")
    faults = Faults(username=login[0], password=login[1]) if login else Faults(auth=())
    try:
        return await stack.enter_async_context(Relay(faults, host=host.strip("[]"), port=int(port)))
    except OSError as error:
        message = f"--relay-listen {listen}: {error.strerror or error}"
        raise Unusable(message) from None
