"""A service whose store is reached by TLS through Sentinels and in a cluster, with a user and passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot

from guaranteed import KEYS, send
from integration.servers import CertificateFiles
from otpmail.v1 import otp_pb2
from redis_layouts import Cluster, WatchedServers
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from redis_server import RedisServer
    from relay import Certificates, Relay

NAME = "store.test"
"""The one name in the certificates of the servers, which Sentinels and nodes do not report."""

PASSWORD = "hunter2"
PASSWORD_OF_SENTINELS = "hunter3"
RULES = "on >hunter2 ~{otpmail}:* &{otpmail}:* +@read +@write +@scripting +@pubsub +ping +wait +time +select"
"""The rights that docs/stores.md gives a user of its own, but for the last ones."""


@pytest.fixture(scope="module")
def named(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """Write a certificate for NAME alone, signed by the authority of the run."""
    directory = tmp_path_factory.mktemp("store")
    issued = certificates.authority.issue_cert(NAME)
    files = CertificateFiles(certificates.ca_file, directory / "cert.pem", directory / "key.pem")
    files.cert_file.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    files.key_file.write_bytes(issued.private_key_pem.bytes())
    return files


@pytest.fixture(scope="module")
def watched(named: CertificateFiles) -> Iterator[WatchedServers]:
    """Servers and Sentinels with TLS, a user of its own, and a password of the Sentinels."""
    with WatchedServers(named) as servers:
        _add_user(servers.servers, "+info")
        servers.set_password_of_sentinels(PASSWORD_OF_SENTINELS)
        yield servers


@pytest.fixture(scope="module")
def cluster(named: CertificateFiles) -> Iterator[Cluster]:
    """Nodes with TLS and a user of its own."""
    with Cluster(key_slot(b"otpmail"), named) as nodes:
        _add_user((*nodes.nodes, *nodes.replicas), "+info", "+cluster|slots")
        yield nodes


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a relay, of keys, and of a store with that user and TLS, but for its URL."""
    return relay_settings(relay, certificates, tmp_path / "token") | {
        "OTP_KEYS": KEYS,
        "OTP_RETURN_CODE": True,
        "STORE_PASSWORD": PASSWORD,
        "STORE_CA_FILE": certificates.ca_file,
        "STORE_TLS_NAME": NAME,
    }


def _add_user(servers: Sequence[RedisServer], *rights: str) -> None:
    for server in servers:
        assert server.command("ACL", "SETUSER", "codes", *RULES.split(), "-@dangerous", *rights).startswith("+OK")


def _store(servers: WatchedServers | Cluster) -> dict[str, Any]:
    """Return the settings that lead to these servers, with the name of the user."""
    password = {"STORE_SENTINEL_PASSWORD": PASSWORD_OF_SENTINELS} if isinstance(servers, WatchedServers) else {}
    return {"STORE_URL": servers.url.replace("://", "://codes@"), **password}


async def _use(service: Service, relay: Relay, name: str) -> None:
    """Issue and check a code, and send a guaranteed mail; none of the log is a warning."""
    await service.wait_until_serving()
    address = f"{name}@example.org"
    code = (await service.otp.SendCode(otp_pb2.SendCodeRequest(email=address))).otp_code
    checked = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=address, code=code))
    assert checked.result == otp_pb2.ValidateCodeResponse.RESULT_VALID
    await send(service, name, request_id=name)
    await relay.wait_for_mails(2)
    assert not [line for line in service.log if line["level"] in {"warning", "error", "critical"}]


async def test_through_sentinels(state: dict[str, Any], watched: WatchedServers, relay: Relay) -> None:
    """Sentinels with a password lead to their master, by TLS and with the right of its user alone."""
    async with Service(**state, **_store(watched)) as service:
        await _use(service, relay, "ada")
        assert await service.stop() == 0
        assert "hunter" not in "\n".join(service.output)


async def test_in_a_cluster(state: dict[str, Any], cluster: Cluster, relay: Relay) -> None:
    """The nodes of the URL lead to the node with our keys, at its port for TLS."""
    async with Service(**state, **_store(cluster)) as service:
        await _use(service, relay, "bob")
        assert await service.stop() == 0
        assert "hunter" not in "\n".join(service.output)


@pytest.mark.parametrize("layout", ["sentinel", "cluster"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"STORE_CA_FILE": None},
            "certificate in certificate chain); see STORE_CA_FILE",
        ),
        ({"STORE_TLS_NAME": None}, "); see STORE_TLS_NAME"),
        ({"STORE_PASSWORD": "hunter4"}, "refuses the user or the password of STORE_URL"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_what_is_wrong_is_one_line(
    state: dict[str, Any], request: pytest.FixtureRequest, layout: str, change: dict[str, Any], words: str
) -> None:
    """A wrong authority, name or password ends the start with 5, and one line names the server and the setting."""
    servers: Any = request.getfixturevalue("watched" if layout == "sentinel" else "cluster")
    lines = await Service(**state | _store(servers) | change).refused(5)
    (line,) = [line for line in lines if "STORE_URL" in line]
    assert "STORE_URL: the server at 127.0.0.1:" in line
    assert words in line
    assert "hunter" not in line


async def test_a_wrong_password_of_the_sentinels(state: dict[str, Any], watched: WatchedServers) -> None:
    """Sentinels that refuse the password end the start with 5, and one line names its setting."""
    settings = state | _store(watched) | {"STORE_SENTINEL_PASSWORD": "hunter4"}
    (line,) = [line for line in await Service(**settings).refused(5) if "STORE_" in line]
    assert "STORE_SENTINEL_PASSWORD" in line
    assert "hunter" not in line
