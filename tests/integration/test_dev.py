"""The first commands of a newcomer: where `otpmail dev` listens, and that without a store nothing is kept on a disk."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from commands import ended, start
from http1 import request, url_of
from otpmail.settings import StoreSettings
from otpmail.v1 import mail_pb2, otp_pb2
from ports import ReservedPort
from service import Service, relay_settings

if TYPE_CHECKING:
    from relay import Certificates, Relay

_WRONG = {
    "STORE_PASSWORD": "secret",
    "STORE_PASSWORD_FILE": "/nowhere/password",
    "STORE_SENTINEL_PASSWORD": "secret",
    "STORE_SENTINEL_PASSWORD_FILE": "/nowhere/password",
    "STORE_CA_FILE": "/nowhere/ca.pem",
    "STORE_CERT_FILE": "/nowhere/cert.pem",
    "STORE_KEY_FILE": "/nowhere/key.pem",
    "STORE_TLS_NAME": "no name",
    "STORE_NAMESPACE": "no name",
    "STORE_ALLOW_VOLATILE": "perhaps",
    "STORE_WAIT_REPLICAS": "many",
}


async def _send_code(service: Service) -> str:
    answer = await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
    return str(answer.otp_code)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("environment", "sqlite:store.db"),
        ("environment", "redis+sentinel://127.0.0.1:1"),
        ("environment", "nonsense"),
        (".env", "redis://user:secret@127.0.0.1:1/0"),
        ("SECRETS_DIR", "sqlite:store.db"),
    ],
)
async def test_dev_ignores_every_setting_of_a_store(source: str, url: str, tmp_path: Path) -> None:
    """`otpmail dev` starts with any STORE_URL, good or not, from any source, names it, and opens nothing.

    Settings that need a store, such as PROCESSES, do not matter either.
    """
    given = {"STORE_URL": url, "PROCESSES": "4"} | _WRONG
    given |= {name: "wrong" for name in StoreSettings.variables() if name not in given}
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    settings: dict[str, object] = dict(given) if source == "environment" else {}
    if source == "SECRETS_DIR":
        settings["SECRETS_DIR"] = secrets
        for name, value in given.items():
            (secrets / name).write_text(value)
    service = Service(command="dev", **settings)
    try:
        if source == ".env":
            (service.make_directory() / ".env").write_text(
                "".join(f"{name}='{value}'\n" for name, value in given.items())
            )
        await service.start()
        assert "STORE_URL" in await service.wait_for_output("it ignores your")
        assert await _send_code(service)
        assert sorted(path.name for path in service.directory.iterdir()) == ([".env"] if source == ".env" else [])
        assert await service.stop() == 0
    finally:
        await service.close()


def _files_open_for_writing(pid: int) -> set[str]:
    """The regular files of a process that it may write to."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(descriptor)  # noqa: PTH115 -- a name of the kernel, such as pipe:[1], which is no path
        flags = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text().split("flags:")[1].split()[0]
        if target.startswith("/") and Path(target).is_file() and int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
            found.add(target)
    return found


async def test_serve_keeps_state_in_memory(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """Without STORE_URL `otpmail serve` has no file open for writing and leaves none: codes end with the process."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    settings |= {"OTP_RETURN_CODE": True, "OTP_KEYS": f"k1:{base64.b64encode(bytes(32)).decode()}"}
    async with Service(**settings) as service:
        await service.wait_until_serving()
        code = await _send_code(service)
        queued = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hi", wait_for=mail_pb2.WAIT_FOR_QUEUE)
        await service.mail.SendMail(queued)
        await relay.wait_for_mails(2)
        assert _files_open_for_writing(service.pid) == set()
        assert await service.stop() == 0
        assert list(service.directory.iterdir()) == []
    async with Service(**settings) as service:
        check = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email="ada@example.org", code=code))
        assert check.result == otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE


async def _http_port(service: Service) -> int:
    """Return the port of HTTP, which the first line and the example name too."""
    port = url_of(service).rpartition(":")[2]
    await service.wait_for_output(f", and over HTTP on http://localhost:{port}; every mail")
    await service.wait_for_output(f"' localhost:{port}/otpmail.v1.OtpService/SendCode")
    assert (await request(f"http://localhost:{port}", "/inbox")).json == {"mails": []}
    return int(port)


@pytest.mark.parametrize("http_port", [None, 0])
async def test_dev_names_the_port_that_it_has(http_port: int | None) -> None:
    """With PORT=0 and no HTTP_PORT, and with HTTP_PORT=0, `otpmail dev` shows the port that the system has chosen."""
    async with Service(command="dev", HTTP_PORT=http_port) as service:
        assert await _http_port(service) > 0


async def test_dev_listens_behind_its_port() -> None:
    """Without HTTP_PORT it is the port behind PORT, on HTTP_HOST, also where another address has that port taken."""
    with ReservedPort(1) as held, socket.create_server(("127.0.0.2", held.port + 1)):
        async with Service(command="dev", PORT=held.port) as service:
            assert await _http_port(service) == held.port + 1


@pytest.mark.parametrize("taken_by", ["a server", "an outgoing connection"])
async def test_dev_where_the_port_behind_its_own_is_taken(taken_by: str) -> None:
    """Without HTTP_PORT it is any other port of HTTP_HOST where the one behind PORT is taken there."""
    with ReservedPort(1) as held, socket.socket() as taken, socket.create_server(("127.0.0.2", 0)) as far:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.2", held.port + 1))
        if taken_by == "a server":
            taken.listen()
        else:
            taken.connect(far.getsockname())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        async with Service(command="dev", PORT=held.port, HTTP_HOST="127.0.0.2") as service:
            (line,) = service.logged("metrics")
            port = int(str(line["url"]).removesuffix("/metrics").rpartition(":")[2])
            assert port != held.port + 1
            await service.wait_for_output(f", and over HTTP on http://127.0.0.2:{port}; every mail")
            assert (await request(f"http://127.0.0.2:{port}", "/inbox")).json == {"mails": []}


async def test_dev_with_a_port_of_http_that_is_taken() -> None:
    """With HTTP_PORT it is that one or none: `otpmail dev` ends with 2, and names the settings."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (line,) = await Service(command="dev", HTTP_PORT=port, EMAIL=None, APP_PASSWORD=None, EMAIL_FROM=None).refused(
            2
        )
    assert line.startswith(f"HTTP_HOST, HTTP_PORT: can't listen on 127.0.0.1:{port}; another server is there")


async def test_the_address_file_names_the_ports(tmp_path: Path) -> None:
    """`otpmail dev --address-file` writes the address and the URL, with the ports that it has, before it shows them."""
    file = tmp_path / "address"
    settings = {"HOST": "127.0.0.1", "PORT": "0", "HTTP_PORT": "0"}
    process = await start("dev", "--address-file", str(file), here=tmp_path, environment=settings)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b" serves on " not in (line := await process.stdout.readline()):
            assert line
    address, url = file.read_text().splitlines()
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", address)
    assert re.fullmatch(r"http://localhost:[1-9]\d*", url)
    assert (await request(url, "/inbox")).json == {"mails": []}
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 0
