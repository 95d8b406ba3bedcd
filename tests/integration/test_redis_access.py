"""A service that signs in to a Redis server, by TLS, with a user and a password, and one that may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from guaranteed import KEYS, send
from otpmail.v1 import otp_pb2
from ports import HOST, ReservedPort
from redis_server import RedisServer
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.servers import CertificateFiles
    from relay import Certificates, Relay

PASSWORD = "hunter2/?#"
ENCODED = "hunter2%2F%3F%23"
RULES = (
    *("on", f">{PASSWORD}", "~{otpmail}:*", "&{otpmail}:*"),
    *(
        "+@read",
        "+@write",
        "+@scripting",
        "+@pubsub",
        "+ping",
        "+info",
        "+wait",
        "+time",
        "+select",
        "-@dangerous",
        "+info",
    ),
)
"""The rights that docs/stores.md gives a user of its own."""


@pytest.fixture
def tls_port(certificate_files: CertificateFiles) -> Iterator[int]:
    """The port for TLS of a server that has a user with the rights that are needed, and no other."""
    options = (
        *("--tls-cert-file", str(certificate_files.cert_file), "--tls-key-file", str(certificate_files.key_file)),
        *("--tls-auth-clients", "no"),
    )
    with ReservedPort() as held, RedisServer("redis-7", *options) as server:
        server.command("ACL", "SETUSER", "codes", *RULES)
        assert server.command("CONFIG", "SET", "tls-port", held.port).startswith("+OK"), server.log()
        server.command("ACL", "SETUSER", "default", "off")
        yield held.port


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of the relay, and keys."""
    return relay_settings(relay, certificates, tmp_path / "token") | {"OTP_KEYS": KEYS, "OTP_RETURN_CODE": True}


async def test_tls_and_a_user(
    state: dict[str, Any], tls_port: int, certificates: Certificates, relay: Relay, tmp_path: Path
) -> None:
    """A user with its own rights and a password from a file works over TLS; no log has the password."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    settings = state | {
        "STORE_URL": f"rediss://codes@localhost:{tls_port}",
        "STORE_PASSWORD_FILE": file,
        "STORE_CA_FILE": certificates.ca_file,
    }
    async with Service(**settings) as service:
        await service.wait_until_serving()
        code = (await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))).otp_code
        checked = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email="ada@example.org", code=code))
        assert checked.result == otp_pb2.ValidateCodeResponse.RESULT_VALID
        await send(service, "ada", request_id="r1")
        await relay.wait_for_mails(2)
        assert await service.stop() == 0
        assert "hunter2" not in "\n".join(service.output)
        assert not [line for line in service.log if line["level"] in {"warning", "error"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"STORE_CA_FILE": None}, "(unable to get local issuer certificate); see STORE_CA_FILE"),
        ({"STORE_TLS_NAME": "redis.example.org"}, "for 'redis.example.org'); see STORE_TLS_NAME"),
        ({"STORE_URL": "rediss://codes:hunter3@localhost:{port}"}, "refuses the user or the password of STORE_URL"),
        ({"STORE_URL": "rediss://localhost:{port}"}, "wants a password: set STORE_PASSWORD_FILE"),
    ],
)
async def test_a_sign_in_that_fails(
    state: dict[str, Any], tls_port: int, certificates: Certificates, change: dict[str, Any], words: str
) -> None:
    """A certificate of nobody we know or of another name, and a wrong password, end the start with one line."""
    settings = state | {
        "STORE_URL": f"rediss://codes:{ENCODED}@localhost:{tls_port}",
        "STORE_CA_FILE": certificates.ca_file,
        **{name: value and value.format(port=tls_port) for name, value in change.items()},
    }
    (line,) = [line for line in await Service(**settings).refused(5) if "STORE_URL" in line]
    assert f"the server at localhost:{tls_port} " in line
    assert words in line
    assert "hunter" not in line


async def test_a_server_that_is_not_there(state: dict[str, Any]) -> None:
    """The start ends at once with exit code 5, and a line that names the setting and the server."""
    (line,) = await Service(**state, STORE_URL=f"redis://{HOST}:1").refused(5)
    assert f"STORE_URL: the server at {HOST}:1 can't be reached: " in line


async def test_files_that_are_no_certificates(state: dict[str, Any], tmp_path: Path) -> None:
    """A file of something else ends the start with a line that names the setting."""
    file = tmp_path / "rubbish.pem"
    file.write_text("hunter2")
    for name, words in (("STORE_CA_FILE", "holds no certificates"), ("STORE_CERT_FILE", "can't be used with its key")):
        (line,) = await Service(**state | {"STORE_URL": f"rediss://{HOST}:1", name: file}).refused(5)
        assert f"{name}: {file} {words}" in line
        assert "hunter2" not in line
