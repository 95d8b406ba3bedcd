"""The first commands of a newcomer, `otpmail dev`, and `otpmail serve` without a store, keep nothing on a disk."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otpmail.settings import StoreSettings
from otpmail.v1 import mail_pb2, otp_pb2
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
