"""A known code, token and password, looked for in all that the service says and keeps: log, errors, metrics, store."""

from __future__ import annotations

import base64
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from attacks.targets import wrong_codes
from calls import metrics_text, text_of
from integration.callers import as_caller, table, write
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import mail_pb2, otp_pb2
from redis_server import RedisServer
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

PASSWORD = "tr0ub4dor&3-relay"
KEY = "5a" * 32
BODY = "the content of a mail that nobody else may read"
ADDRESS = "ada.lovelace@private.example"
SESSION = "the-session-of-ada-at-shop"
_DIGITS = 10  # of which no log and no dump has the same ones by chance


def _forms(secret: str) -> set[bytes]:
    """Return how a secret may be written: as it is, in hex, and in base64 at each offset."""
    octets = secret.encode()
    shifted = (base64.b64encode(bytes(shift) + octets)[4:-4] for shift in range(3))
    raw = {bytes.fromhex(secret)} if re.fullmatch("([0-9a-f]{2}){32}", secret) else set()
    return {octets, octets.hex().encode(), *shifted, *raw}


def _found(secrets: dict[str, str], place: str, text: bytes) -> list[str]:
    return [f"{name} in {place}" for name, secret in secrets.items() if any(form in text for form in _forms(secret))]


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
async def test_a_secret_gets_out_nowhere(certificates: Certificates, tmp_path: Path, store: str) -> None:
    """No log at debug, error, answer, metric or dump of the store has a code, a token, the password or the key.

    The device token is in the answer that gives it alone, and the caller's session in none.
    """
    callers = tmp_path / "callers.toml"
    write(callers, table("shop"))
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(Faults(username="user", password=PASSWORD)))
        server = stack.enter_context(RedisServer()) if store == "redis" else None
        settings = relay_settings(relay, certificates, tmp_path / "token") | {
            "LOG_LEVEL": "debug",
            "HTTP_PORT": 0,
            "OTP_DIGITS": _DIGITS,
            "OTP_RESEND_SECONDS": 0,
            "CALLERS_FILE": callers,
            "OTP_KEYS": f"k1:{KEY}",
            **_store(store, tmp_path, server),
        }
        service = await stack.enter_async_context(Service(**settings))
        await service.wait_until_serving()
        said, codes, device = await _use(service, relay)
        await service.wait_for_log("code-checked", count=3)
        secrets = {
            "token": "shop-token",
            "password": PASSWORD,
            "key": KEY,
            "content": BODY,
            "session": SESSION,
            **codes,
        }
        secrets["device token"] = device
        places = {
            "the log": "\n".join(service.output).encode(),
            "an answer": "\n".join(said).encode(),
            "the metrics": (await metrics_text(service)).encode(),
        }
        leaks = [leak for place, text in places.items() for leak in _found(secrets, place, text)]
        assert leaks == []
        assert _found({"caller": "shop"}, "the log", places["the log"])  # it would notice
        kept = _dump(store, tmp_path, server)
        assert bool(kept) is (store != "memory")
        assert _found(secrets | {"address": ADDRESS}, "the store", kept) == []


async def _use(service: Service, relay: Relay) -> tuple[list[str], dict[str, str], str]:
    """Send codes and mails, check right and wrong, and be refused in each way.

    Returns what was said, the codes, and the device token that was given, which is left out of what was said.
    """
    shop: Any = as_caller("shop")
    said: list[str] = []

    async def call(calling: Awaitable[Any]) -> None:
        try:
            said.append(str(await calling))
        except grpc.aio.AioRpcError as error:
            said.extend((str(error.code()), error.details() or "", error.debug_error_string() or ""))
            said.extend(str(value) for _, value in error.trailing_metadata() or ())

    async def code(calling: Awaitable[Any]) -> str:
        before = len(relay.mails)
        await call(calling)
        found = re.search(rf"\b\d{{{_DIGITS}}}\b", text_of(relay.mails[before].content))
        assert found is not None
        return found[0]

    send, check = service.otp.SendCode, service.otp.ValidateCode
    used = await code(send(otp_pb2.SendCodeRequest(email=ADDRESS, session=SESSION), metadata=shop))
    wrong = wrong_codes(used, 1)[0]
    await call(check(otp_pb2.ValidateCodeRequest(email=ADDRESS, code=wrong, session=SESSION), metadata=shop))
    right = otp_pb2.ValidateCodeRequest(email=ADDRESS, code=used, session=SESSION, request_id="the right one")
    device = (await check(right, metadata=shop)).device_token
    right.device_token = device
    right.request_id = "another"
    await call(check(right, metadata=shop))
    again = otp_pb2.SendCodeRequest(email=ADDRESS, request_id="r", session=SESSION, device_token=device)
    live = await code(send(again, metadata=shop))
    # The device token in the place of something else, or spoilt.
    for request in (
        otp_pb2.ValidateCodeRequest(email=device, code=device),
        otp_pb2.ValidateCodeRequest(code=device * 9),
    ):
        await call(check(request, metadata=shop))
    await call(send(otp_pb2.SendCodeRequest(email=ADDRESS, device_token=device * 40), metadata=shop))
    # Refusals: the code in the place of something else, no token, a wrong one, a code too long.
    for request in (otp_pb2.ValidateCodeRequest(email=live, code=live), otp_pb2.ValidateCodeRequest(code=live * 200)):
        await call(check(request, metadata=shop))
    await call(check(otp_pb2.ValidateCodeRequest(email=ADDRESS, code=live)))
    await call(service.original_otp.ValidateCode(original_pb2.ValidateCodeRequest(email=ADDRESS, otpCode=live)))
    await call(check(otp_pb2.ValidateCodeRequest(email=ADDRESS, code=live), metadata=_bearer("shop-token-x")))
    relay.faults = Faults(username="user", password=PASSWORD, final_reply=f"451 4.3.0 try later {PASSWORD}")
    kept = mail_pb2.SendMailRequest(to=[ADDRESS], subject=live, text=BODY, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await call(service.mail.SendMail(kept, metadata=shop))
    await service.wait_for_log("mail-deferred")
    await call(service.mail.ListMails(mail_pb2.ListMailsRequest(), metadata=shop))
    codes = {"used code": used, "live code": live, "typed code": wrong}
    return [text.replace(ADDRESS, "") for text in said], codes, device


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _store(store: str, folder: Path, server: RedisServer | None) -> dict[str, object]:
    if server is not None:
        return {"STORE_URL": server.url}
    return {"STORE_URL": f"sqlite:{folder / 'store.db'}"} if store == "sqlite" else {}


def _dump(store: str, folder: Path, server: RedisServer | None) -> bytes:
    """Return all octets that the store has written, its logs included; nothing for memory."""
    if store == "memory":
        return b""
    files = server.directory.rglob("*") if server is not None else folder.glob("store.db*")
    return b"".join(path.read_bytes() for path in files if path.is_file())
