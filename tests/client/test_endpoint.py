"""Where the service is, by arguments and the environment, and what reaches this machine's own loopback."""

import asyncio
import gc
from pathlib import Path

import grpc
import pytest
import trustme
import uvloop

from client.scripted import Scripted
from otpmail.client import Client, SyncClient
from otpmail.client.endpoint import Endpoint, is_here
from otpmail.v1 import otp_pb2

_VALID = otp_pb2.ValidateCodeResponse(result=otp_pb2.ValidateCodeResponse.RESULT_VALID)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "localhost:1",
        "LOCALHOST:1",
        "a.localhost:1",
        "[::1]:1",
        "unix:/a",
        "dns:///localhost:1",
    ],
)
def test_what_is_here(target: str) -> None:
    """Loopback addresses and Unix sockets are on this machine."""
    assert is_here(target)


@pytest.mark.parametrize("target", ["otpmail:40700", "10.0.0.1:1", "[2001:db8::1]:1", "localhost.example.org:1"])
def test_what_is_elsewhere(target: str) -> None:
    """Other names and addresses are not, so that a proxy may be needed there."""
    assert not is_here(target)


@pytest.mark.parametrize("kind", [Client, SyncClient])
async def test_a_proxy_does_not_take_calls_to_loopback(
    kind: type[Client | SyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPC reads http_proxy in lower case for any address; the client asks no proxy for this machine's own loopback."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with Scripted(_VALID) as service:
        monkeypatch.setenv("OTPMAIL_SERVER", service.address)
        client = kind()
        if isinstance(client, Client):
            async with client:
                assert await client.check_code("ada@example.org", "123456")
        else:
            with client:
                assert await asyncio.to_thread(client.check_code, "ada@example.org", "123456")


def test_the_environment_is_read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is made at import goes by the environment of its calls; arguments win, also an empty token."""
    late, given = Endpoint(), Endpoint("10.0.0.1:1", "")
    assert late.target == "127.0.0.1:40700"
    monkeypatch.setenv("OTPMAIL_SERVER", "10.0.0.2:2")
    monkeypatch.setenv("OTPMAIL_TOKEN", "token")
    assert (late.target, given.target) == ("10.0.0.2:2", "10.0.0.1:1")
    assert late.metadata() == (("authorization", "Bearer token"),)
    assert given.metadata() == ()


def test_one_client_serves_many_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client at module level works in each loop, asyncio's or uvloop's, and keeps nothing of the loops that ended."""
    client = Client()

    async def check() -> int:
        """Start a service in this loop, and call it."""
        async with Scripted(_VALID, _VALID) as service:
            monkeypatch.setenv("OTPMAIL_SERVER", service.address)
            await client.check_code("ada@example.org", "123456")
            await client.check_code("ada@example.org", "123456")
            return len(client._channels)

    assert [asyncio.run(check()), uvloop.run(check()), asyncio.run(check())] == [1, 1, 1]
    gc.collect()  # a channel of a loop that has ended leaves no warning


@pytest.mark.parametrize("given", ["arguments", "environment"])
async def test_tls_by_an_authority(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTPMAIL_CA_FILE makes calls by TLS and trusts that authority; OTPMAIL_TLS_NAME is the name in the certificate."""
    authority = trustme.CA()
    certificate = authority.issue_cert("otpmail.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = certificate.private_key_pem.bytes(), b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    async with Scripted(_VALID, credentials=grpc.ssl_server_credentials([pair])) as service:
        options = {"ca_file": str(tmp_path / "ca.pem"), "tls_name": "otpmail.example"}
        if given == "environment":
            for name, value in options.items():
                monkeypatch.setenv(f"OTPMAIL_{name.upper()}", value)
            options = {}
        async with Client(service.address, **options) as client:  # type: ignore[arg-type]
            assert await client.check_code("ada@example.org", "123456")


def _write(*paths: Path) -> None:
    for path in paths:
        path.write_text("pem")


@pytest.mark.parametrize("given", ["arguments", "environment"])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cert_file"], "{cert_file}: needs ca_file or OTPMAIL_CA_FILE, without which there is no TLS"),
        (["cert_file", "key_file"], "{cert_file}: needs ca_file or OTPMAIL_CA_FILE, without which there is no TLS"),
        (["ca_file", "key_file"], "{key_file}: needs cert_file or OTPMAIL_CERT_FILE, whose key it is"),
        (["key_file"], "{key_file}: needs cert_file or OTPMAIL_CERT_FILE, whose key it is"),
    ],
)
def test_a_file_without_effect(
    given: str, names: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate without an authority would be a call without TLS, so it is an error that names it."""
    called = {name: name if given == "arguments" else f"OTPMAIL_{name.upper()}" for name in ("cert_file", "key_file")}
    _write(*(tmp_path / name for name in names))
    options = {name: tmp_path / name for name in names}
    if given == "environment":
        for name in names:
            monkeypatch.setenv(f"OTPMAIL_{name.upper()}", str(tmp_path / name))
        options = {}
    with SyncClient("127.0.0.1:1", **options) as client, pytest.raises(ValueError, match="needs") as failed:  # type: ignore[arg-type]
        client.get_mail("id")
    assert str(failed.value) == words.format_map(called)
    assert Endpoint("unix:/a", **options).credentials("unix:/a") is None  # type: ignore[arg-type]


def test_a_slow_network_has_time_to_connect() -> None:
    """An attempt to connect has two seconds: TCP, TLS and HTTP/2 take four round trips, and a lost packet one second.

    gRPC's name for this option speaks of the wait between two attempts. With 0.1 s the first call failed over 0.3 s of
    round trip, and some calls are not repeated.
    """
    assert dict(Endpoint().options("mail.example:40700"))["grpc.min_reconnect_backoff_ms"] == 2000


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_can_not_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the name of the argument or the variable, beside the path; a wrong type is refused at once."""
    missing = tmp_path / "missing.pem"
    with pytest.raises(FileNotFoundError) as failed:
        SyncClient("127.0.0.1:1", **{name: missing}).get_mail("id")  # type: ignore[arg-type]
    assert str(failed.value) == f"[Errno 2] {name}: No such file or directory: '{missing}'"
    monkeypatch.setenv(f"OTPMAIL_{name.upper()}", str(tmp_path))
    with pytest.raises(IsADirectoryError) as failed_too:
        SyncClient("127.0.0.1:1").get_mail("id")
    assert str(failed_too.value) == f"[Errno 21] OTPMAIL_{name.upper()}: Is a directory: '{tmp_path}'"
    with pytest.raises(TypeError) as wrong:
        Client("127.0.0.1:1", **{name: b"pem"})  # type: ignore[arg-type]
    assert str(wrong.value) == f"{name}: must be text or a Path, not bytes"
