"""Calls of programs that are no callers, guesses through several callers, and checks while the store is not there."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc.aio
import pytest
import pytest_asyncio

from attacks.calling import methods_of, statuses
from attacks.targets import Answer, somebody, through, wrong_codes
from integration.callers import Tls, as_caller, table, write
from otpmail.v1 import mail_pb2, otp_pb2
from redis_server import RedisServer
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from attacks.targets import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

STORES = ("memory", "sqlite", "redis")
_VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
_NO_LIVE_CODE = otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
_REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
STRANGERS: dict[str, tuple[tuple[str, str | bytes], ...]] = {
    "no token": (),
    "a wrong token": (("authorization", "Bearer otpmail_made-up"),),
    "an empty token": (("authorization", "Bearer "),),
    "two tokens": (("authorization", "Bearer a"), ("authorization", "Bearer b")),
    "two tokens in one": (("authorization", "Bearer a, Bearer b"),),
    "another scheme": (("authorization", "Basic YTpi"),),
    "a token in octets": (("authorization-bin", b"Bearer a"),),
    "the words of a proxy": (("x-forwarded-for", "127.0.0.1"), ("x-forwarded-user", "shop")),
}


class Guarded(NamedTuple):
    """A server that asks for tokens, and the relay that it mails to, if the tests are it."""

    address: str
    relay: Relay | None


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(
    system: System, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[tuple[str, Relay | None]]:
    """Return the address of a server that asks for tokens, and its relay: the target's, or one of ours."""
    if not system.services:
        if "OTPMAIL_TOKEN" not in os.environ:
            pytest.skip("the target may ask for no token, since OTPMAIL_TOKEN is not set")
        yield Guarded(system.addresses[0], system.relay)
        return
    assert system.relay is not None
    file = tmp_path / "callers.toml"
    write(file, table("shop"))
    settings = relay_settings(system.relay, certificates, tmp_path / "token") | {"CALLERS_FILE": file}
    async with Service(**settings) as service:
        await service.wait_until_serving()
        yield Guarded(service.address, system.relay)


@pytest.mark.one_store
async def test_no_method_answers_a_stranger(guarded: Guarded) -> None:
    """Each method of both contracts is UNAUTHENTICATED, or not there, for whatever is no token; no mail leaves."""
    address, relay = guarded
    before = 0 if relay is None else len(relay.mails)
    email = somebody()
    bodies = {
        "SendCode": otp_pb2.SendCodeRequest(email=email),
        "SendMail": mail_pb2.SendMailRequest(to=[email], text="t"),
        "SendMails": mail_pb2.SendMailsRequest(mails=[mail_pb2.SendMailRequest(to=[email], text="t", request_id="r")]),
    }
    async with _open(address) as channel:
        for method in (*methods_of("v1"), *methods_of("original")):
            body = bodies.get(method.name)
            octets = body.SerializeToString() if body is not None and method.full_name.startswith("otpmail") else b""
            for name, metadata in STRANGERS.items():
                got = await statuses(channel, method, octets, metadata)
                assert got <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}, (method.full_name, name)
    if relay is not None:
        assert email not in {recipient for mail in relay.mails[before:] for recipient in mail.recipients}


def _open(address: str) -> grpc.aio.Channel:
    options = (("grpc.enable_http_proxy", 0),)
    if authority := os.environ.get("OTPMAIL_CA_FILE"):
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(Path(authority).read_bytes()), options)
    return grpc.aio.insecure_channel(address, options)


@pytest.mark.one_store
async def test_no_words_without_todays_tls(system: System, certificates: Certificates, tmp_path: Path) -> None:
    """A port with TLS answers neither TLS 1.1 nor plain text, and TLS 1.2 shows that it is there."""
    async with AsyncExitStack() as stack:
        if system.services:
            assert system.relay is not None
            tls = Tls(certificates, tmp_path)
            settings = relay_settings(system.relay, certificates, tmp_path / "token") | tls.settings
            service = await stack.enter_async_context(Service(**settings))
            address, authority = service.address, str(tls.ca)
        elif "OTPMAIL_CA_FILE" in os.environ:
            address, authority = system.addresses[0], os.environ["OTPMAIL_CA_FILE"]
        else:
            pytest.skip("the target may have no TLS, since OTPMAIL_CA_FILE is not set")
        with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(_shake_hands, address, authority, ssl.TLSVersion.TLSv1_1)
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            assert await asyncio.to_thread(_shake_hands, address, authority, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert await asyncio.to_thread(_said_in_plain_text, address) in {b"", b"\x15"}  # at most an alert of TLS


def _shake_hands(address: str, authority: str, version: ssl.TLSVersion) -> str | None:
    """Return the version that was agreed on."""
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    context.set_ciphers("ALL:@SECLEVEL=0")  # otherwise the client's own library refuses TLS 1.1
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
    with _connect(address) as tcp, context.wrap_socket(tcp) as wrapped:
        return wrapped.version()


def _said_in_plain_text(address: str) -> bytes:
    with _connect(address) as tcp:
        tcp.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        try:
            return tcp.recv(1)
        except ConnectionError:
            return b""


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), 30)


async def test_two_contracts_give_no_more_guesses(system: System) -> None:
    """Guesses at one code through both contracts in turn are as many as through one."""
    if not system.services:
        pytest.skip("the target may speak one contract alone")
    async with through("v1", system) as ours, through("original", system) as original:
        for first, second in ((ours, original), (original, ours)):
            email = somebody()
            code = await first.code_for(email)
            assert code is not None
            told: Counter[Answer] = Counter()
            for guess in wrong_codes(code, 2 * system.limits.attempts):
                for target in (first, second):
                    told[await target.check(email, guess)] += 1
            assert 0 < told[Answer.WRONG] <= system.limits.attempts
            assert await first.check(email, code) is Answer.REFUSED
            assert await second.check(email, code) is Answer.REFUSED


@pytest.mark.parametrize("store", STORES)
async def test_other_callers_give_no_guesses(certificates: Certificates, tmp_path: Path, store: str) -> None:
    """A guess through another caller is compared with its own codes alone, and takes no attempt of the first one's."""
    file = tmp_path / "callers.toml"
    write(file, table("shop") + table("news"))
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(Faults(auth=())))
        settings = relay_settings(relay, certificates, tmp_path / "token") | _store(store, tmp_path, stack)[0]
        settings |= {"CALLERS_FILE": file, "OTP_RETURN_CODE": True}
        service = await stack.enter_async_context(Service(**settings))
        await service.wait_until_serving()
        email = somebody()

        async def check(caller: str, code: str) -> int:
            request = otp_pb2.ValidateCodeRequest(email=email, code=code)
            return (await service.otp.ValidateCode(request, metadata=as_caller(caller))).result

        codes = {
            name: (await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email), metadata=as_caller(name))).otp_code
            for name in ("shop", "news")
        }
        for guess in wrong_codes(codes["shop"], 6):
            assert await check("news", guess) != _VALID
        assert await check("news", codes["news"]) == otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS
        assert await check("shop", codes["shop"]) == _VALID


@pytest.mark.parametrize("store", STORES[1:])
async def test_no_code_is_valid_without_the_store(certificates: Certificates, tmp_path: Path, store: str) -> None:
    """While the store is not there, the right code is refused, no code is mailed, and then it is valid once."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(Faults(auth=())))
        more, leave, come_back = _store(store, tmp_path, stack)
        settings = relay_settings(relay, certificates, tmp_path / "token") | more | {"OTP_RETURN_CODE": True}
        service = await stack.enter_async_context(Service(**settings))
        await service.wait_until_serving()
        email = somebody()
        code = (await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email))).otp_code

        async def send() -> grpc.StatusCode | None:
            try:
                await service.otp.SendCode(otp_pb2.SendCodeRequest(email=somebody()), timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return None

        async def check() -> int | grpc.StatusCode:
            try:
                answer = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=email, code=code), timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return answer.result

        leave()
        async with asyncio.timeout(60):
            while await send() not in _REFUSED:  # noqa: ASYNC110  a file that is not there is noticed by and by
                await asyncio.sleep(0.05)
        mailed = len(relay.mails)
        assert {await check() for _ in range(3)} <= {*_REFUSED}
        assert await send() in _REFUSED
        assert len(relay.mails) == mailed
        come_back()
        async with asyncio.timeout(60):
            while (result := await check()) in _REFUSED:  # noqa: ASYNC110  nothing tells when it may be asked again
                await asyncio.sleep(0.1)
        # A server that stood still may have done what it was asked, and nobody had its answer.
        assert result in ({_VALID} if store == "sqlite" else {_VALID, _NO_LIVE_CODE})
        assert await check() == _NO_LIVE_CODE


def _store(store: str, folder: Path, stack: AsyncExitStack) -> tuple[dict[str, Any], Any, Any]:
    """Return the settings of a store, and what takes it away and brings it back."""
    if store == "memory":
        return {}, None, None
    keys = {"OTP_KEYS": f"k1:{'11' * 32}"}
    if store == "sqlite":
        path, away = folder / "store.db", folder / "away.db"
        return keys | {"STORE_URL": f"sqlite:{path}"}, lambda: path.rename(away), lambda: away.rename(path)
    server = stack.enter_context(RedisServer())
    return keys | {"STORE_URL": server.url}, server.pause, server.resume
