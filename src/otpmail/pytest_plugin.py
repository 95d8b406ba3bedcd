"""The plugin of pytest, which is there wherever otpmail is installed: the fixture `otpmail`.

It imports the rest when a test asks for the fixture, since it is loaded in each run of pytest.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otpmail.testing import Namespace, Service, Setting


@pytest.fixture(scope="session")
def otpmail_settings() -> "dict[str, Setting]":
    """Settings of the service, by the names of `otpmail serve`. A conftest.py may have another fixture of this name."""
    return {}


@pytest.fixture(scope="session")
def otpmail_service(otpmail_settings: "dict[str, Setting]") -> "Iterator[Service]":
    """A service in a process of its own, one for each process of the tests."""
    from otpmail.testing import Service

    with Service(otpmail_settings) as service:
        yield service


@pytest.fixture
def otpmail(otpmail_service: "Service", monkeypatch: pytest.MonkeyPatch) -> "Iterator[Namespace]":
    """The service for one test: `inbox(address).code()`, `fail(550)`, `clock.advance(minutes=10)`.

    A client without arguments calls it, since OTPMAIL_SERVER and OTPMAIL_TOKEN are set for the test.
    """
    namespace = otpmail_service.namespace()
    for name, value in namespace.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("OTPMAIL_CA_FILE", "OTPMAIL_CERT_FILE", "OTPMAIL_KEY_FILE", "OTPMAIL_TLS_NAME"):
        monkeypatch.delenv(name, raising=False)
    yield namespace
    namespace.close()
