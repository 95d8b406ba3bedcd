"""The start: settings from all their sources, and the messages when one is wrong."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from commands import otpmail
from otpmail.v1 import mail_pb2
from relay import Certificates, Faults, Relay
from service import Service, ServiceExitedError, relay_settings

if TYPE_CHECKING:
    from pathlib import Path


async def _lines_of_failed_start(**settings: Any) -> list[str]:
    service = Service(**settings)
    refusals = await service.refused(2)
    assert len(service.output) == len(refusals)  # nothing else is written
    return refusals


@pytest.mark.parametrize(
    ("settings", "name", "shown"),
    [
        ({"PORT": "abc"}, "PORT", "'abc'"),
        ({"PORT": 70000}, "PORT", "'70000'"),
        ({"WORKERS": 0}, "WORKERS", "'0'"),
        ({"OTP_DIGITS": 3}, "OTP_DIGITS", "'3'"),
        ({"EMAIL_SECURITY": "ssl"}, "EMAIL_SECURITY", "'ssl'"),
        ({"EMAIL_AUTH": "gssapi"}, "EMAIL_AUTH", "'gssapi'"),
        ({"EMAIL_AUTH": "xoauth2"}, "EMAIL_TOKEN_FILE", "EMAIL_AUTH=xoauth2"),
        ({"EMAIL_CA_FILE": "missing.pem"}, "EMAIL_CA_FILE", "'missing.pem'"),
        ({"EMAIL_FROM": "nobody"}, "EMAIL_FROM", "'nobody'"),
        ({"EMAIL_FROM": None, "EMAIL": "user"}, "EMAIL_FROM", "is needed"),
        ({"APP_PASSWORD": None}, "APP_PASSWORD", "is needed"),
        ({"EMAIL_HOST": "mail.example.org", "EMAIL_SECURITY": "plain"}, "EMAIL_SECURITY", "unencrypted"),
        ({"HOST": "0.0.0.0"}, "HOST", "ALLOW_ANONYMOUS"),
        ({"OTP_KEYS": "k1:c2VjcmV0LXRoYXQtaXMtc2hvcnQ="}, "OTP_KEYS", "fewer than 32 bytes"),
        ({"OTP_LOCALE": "xx"}, "OTP_LOCALE", "'xx'"),
        ({"SECRETS_DIR": "missing"}, "SECRETS_DIR", "missing"),
        ({"EMAIL_CA_FILE": __file__}, "EMAIL_CA_FILE", "PEM"),
        ({"EMAIL_FROM_ALLOWED": "@shop.example, nobody"}, "EMAIL_FROM_ALLOWED", "'nobody'"),
        ({"OTP_RESEND_SECONDS": "inf"}, "OTP_RESEND_SECONDS", "'inf'"),
        ({"HOST": "unix:missing/s"}, "HOST", "unix:missing/s; there is no folder missing"),
        ({"HOST": "192.0.2.1", "ALLOW_ANONYMOUS": "true"}, "HOST", "this machine does not have it"),
    ],
)
async def test_a_wrong_setting(settings: dict[str, Any], name: str, shown: str) -> None:
    """A wrong setting ends the start with exit code 2 and a line with its name and the reason, without secrets."""
    (line,) = await _lines_of_failed_start(**settings)
    assert line.startswith(f"{name}: ")
    assert shown in line
    assert "c2VjcmV0" not in line


async def test_several_wrong_settings() -> None:
    """Several wrong settings are listed together, a line each."""
    lines = await _lines_of_failed_start(WORKERS="many", OTP_ATTEMPTS=0)
    assert [line.partition(":")[0] for line in lines] == ["WORKERS", "OTP_ATTEMPTS"]


async def test_a_refusal_in_the_log() -> None:
    """With LOG_FORMAT=json a refusal is a line with the fields of each other line; a wrong format itself is a text."""
    with pytest.raises(ServiceExitedError) as caught:
        async with Service(WORKERS="many"):
            pass
    (line,) = [json.loads(text) for text in caught.value.output]
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("message") == "WORKERS: 'many' is wrong: must be a whole number from 1 to 1000"
    assert line == {"level": "error", "event": "refused", "setting": "WORKERS"}
    with pytest.raises(ServiceExitedError) as caught:
        async with Service(WORKERS="many", LOG_FORMAT="xml"):
            pass
    assert [text.partition(":")[0] for text in caught.value.output] == ["LOG_FORMAT", "WORKERS"]


async def test_a_misspelt_setting_in_the_environment(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """The start warns of a name in the environment that is nearly a setting, once, and names both; so does a check."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings, EMAIL_TTL="5m", MAIL_SERVICE_HOST="10.0.0.1") as service:
        (line,) = service.logged("unknown-setting")
    said = "EMAIL_TTL: is in the environment, but there is no such setting, so it has no effect; did you mean MAIL_TTL?"
    assert (line["level"], line["setting"], line["message"]) == ("warning", "EMAIL_TTL", said)
    given = {"EMAIL_FROM": "codes@example.org", "EMAIL_HOST": "127.0.0.1", "EMAIL_TTL": "5m"}
    checked = await otpmail("check", "--no-dial", here=tmp_path, **given)
    assert (checked.code, checked.err.strip()) == (0, said)


async def test_a_limit_of_an_hour_above_that_of_a_day(tmp_path: Path) -> None:
    """`otpmail check` warns of settings that the start warns of."""
    given = {"EMAIL_FROM": "codes@example.org", "EMAIL_HOST": "127.0.0.1", "OTP_FAILURES_PER_HOUR": "40"}
    checked = await otpmail("check", "--no-dial", here=tmp_path, **given)
    said = "OTP_FAILURES_PER_HOUR=40: has no effect, since OTP_FAILURES_PER_DAY=30 is reached first"
    assert (checked.code, checked.err.strip()) == (0, said)


async def test_a_setting_without_effect(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """The start warns of a setting without the one that it depends on, once, and names both; so does a check."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings, HTTP_HOST="0.0.0.0") as service:
        line = await service.wait_for_log("setting-without-effect", setting="HTTP_HOST")
        assert len(service.logged("setting-without-effect")) == 1
    said = "HTTP_HOST: has no effect, since HTTP_PORT is not set"
    assert (line["level"], line["message"]) == ("warning", said)
    given = {"EMAIL_FROM": "codes@example.org", "EMAIL_HOST": "127.0.0.1", "HTTP_HOST": "0.0.0.0"}
    checked = await otpmail("check", "--no-dial", here=tmp_path, **given)
    assert (checked.code, checked.err.strip()) == (0, said)


async def test_a_taken_port() -> None:
    """A port on which another server listens is an error, not shared silently."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (line,) = await _lines_of_failed_start(PORT=taken.getsockname()[1])
    assert line.startswith("PORT: ")
    assert "another server" in line


async def test_two_services_do_not_share_a_port(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """A second service on the port of the first does not start: callers would miss their codes in one of them."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings) as first:
        port = first.address.rpartition(":")[2]
        (line,) = await _lines_of_failed_start(**settings | {"PORT": port})
        assert line.startswith("PORT: ")


async def test_two_services_do_not_share_a_unix_socket(
    certificates: Certificates, relay: Relay, tmp_path: Path
) -> None:
    """A second service on the Unix socket of the first does not start; a socket that was left behind is replaced."""
    settings = relay_settings(relay, certificates, tmp_path / "token") | {"HOST": f"unix:{tmp_path}/s"}
    async with Service(**settings) as first:
        (line,) = await _lines_of_failed_start(**settings)
        assert line.startswith("HOST: ")
        await first.kill()
        async with Service(**settings) as second:
            await second.wait_until_serving()


async def test_settings_from_a_file_and_from_secrets(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """Settings come from the environment, then .env, then files in SECRETS_DIR."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "app_password").write_text("secret\n")
    (secrets / "email_from").write_text("not used, .env is asked first")
    service = Service(**settings | {"APP_PASSWORD": None, "EMAIL_FROM": None, "SECRETS_DIR": secrets, "OTP_DIGITS": 8})
    await service.spawn()  # makes the directory
    await service.wait_exited()
    (service.directory / ".env").write_text("EMAIL_FROM=file@example.org\nOTP_DIGITS=4\n")
    async with service:
        await service.wait_until_serving()
        await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"]))
        assert relay.mails[0].sender == "file@example.org"
        assert relay.mails[0].username == "user"


async def test_a_unix_socket(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """HOST=unix:PATH listens there and nowhere else."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings, HOST=f"unix:{tmp_path}/s") as service:
        assert service.address == f"unix:{tmp_path}/s"
        await service.wait_until_serving()


async def _check(service: Service) -> tuple[int, str]:
    await service.spawn()
    code = await service.wait_exited()
    return code, "\n".join(service.output)


@pytest.mark.relay(security="tls", size=10_000_000)
async def test_check(certificates: Certificates, relay: Relay, tmp_path: Path) -> None:
    """`otpmail check` signs in, prints what the relay announces and the round trips of a mail, and sends none."""
    service = Service(command="check", **relay_settings(relay, certificates, tmp_path / "token"))
    try:
        code, output = await _check(service)
    finally:
        await service.close()
    assert code == 0
    assert "signed in as user" in output
    for words in (
        "PIPELINING           yes",
        "CHUNKING             yes",
        "SIZE                 10000000",
        "AUTH                 PLAIN LOGIN",
    ):
        assert words in output
    assert "round trips for a mail to one recipient: 1" in output
    assert relay.mails == []


@pytest.mark.parametrize(("name", "value"), [("OTP_LOCALE", "xx"), ("EMAIL_CA_FILE", __file__), ("WORKERS", "0")])
async def test_check_of_wrong_settings(name: str, value: str) -> None:
    """`otpmail check` finds the settings that stop `otpmail serve`: exit code 2 and a line for each."""
    service = Service(command="check", **{name: value})
    try:
        code, output = await _check(service)
    finally:
        await service.close()
    assert code == 2
    assert output.startswith(f"{name}: ")


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("is_set", [True, False])
async def test_check_opens_no_store(tmp_path: Path, *, is_set: bool) -> None:
    """`otpmail check` says that it did not open the store that STORE_URL names, and makes no file for it."""
    settings = {"EMAIL_FROM": "codes@example.org", "EMAIL_HOST": "127.0.0.1", "OTP_KEYS": f"k1:{'0' * 64}"}
    if is_set:
        settings["STORE_URL"] = f"sqlite:{tmp_path}/store.db"
    ran = await otpmail("check", "--no-dial", here=tmp_path, **settings)
    about = ["store: not opened; `otpmail serve` opens it at its start"] if is_set else []
    assert (ran.code, ran.out.splitlines()) == (0, ["settings: good", *about]), ran.err
    assert _names_in(tmp_path) == []


async def test_check_tells_all_at_once() -> None:
    """`otpmail check` lists each wrong file that settings name once, though several relays share it."""
    urls = "smtps://one.example smtps://two.example"
    service = Service(command="check", OTP_LOCALE="xx", EMAIL_CA_FILE=__file__, EMAIL_HOST=None, EMAIL_RELAYS=urls)
    try:
        code, output = await _check(service)
    finally:
        await service.close()
    assert code == 2
    assert [line.partition(":")[0] for line in output.splitlines()] == ["OTP_LOCALE", "EMAIL_CA_FILE"]


async def test_check_of_a_relay_that_is_away(certificates: Certificates) -> None:
    """`otpmail check` prints why a relay cannot be used, and ends with 1."""
    async with Relay(Faults(security="starttls", starttls_stripped=True), certificates=certificates) as relay:
        settings = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": relay.port, "EMAIL_CA_FILE": certificates.ca_file}
        service = Service(command="check", **settings)
        try:
            code, output = await asyncio.wait_for(_check(service), 20)
        finally:
            await service.close()
    assert code == 1
    assert "does not announce STARTTLS" in output


@pytest.mark.relay(security="plain")
@pytest.mark.parametrize("by_url", [False, True])
async def test_check_of_tls_where_there_is_none(relay: Relay, by_url: bool) -> None:  # noqa: FBT001
    """A relay that answers TLS with plain text is recognised, and the message names the setting to change."""
    one = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": relay.port, "EMAIL_SECURITY": "tls"}
    urls = {"EMAIL_HOST": None, "EMAIL_RELAYS": f"smtps://127.0.0.1:{relay.port}"}
    service = Service(command="check", **(urls if by_url else one))
    try:
        code, output = await asyncio.wait_for(_check(service), 20)
    finally:
        await service.close()
    assert code == 1
    line = output.splitlines()[-1]
    assert line.startswith(f"relay 127.0.0.1:{relay.port} (tls): does not speak TLS on this port, ")
    instead = (
        ("smtp:// in EMAIL_RELAYS", "smtp+plain://") if by_url else ("EMAIL_SECURITY=starttls", "EMAIL_SECURITY=plain")
    )
    assert f"; set {instead[0]}, or {instead[1]}, which encrypts nothing; or set " in line
    assert "version" not in line
