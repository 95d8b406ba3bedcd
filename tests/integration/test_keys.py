"""Keys are made by a command and replaced between a stop and a start, and a file is backed up and restored."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from commands import otpmail
from guaranteed import names, redis_settings, send
from otpmail.settings import parse_keys
from otpmail.v1 import mail_pb2, otp_pb2
from redis_server import RedisServer
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay

VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
_K1, _K2, _K7 = (f"k{number}:{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2, 7))


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service with its store in a file of the test, without keys."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    return settings | {"STORE_URL": f"sqlite:{tmp_path / 'store.db'}", "OTP_RETURN_CODE": True}


async def _send_code(service: Service, name: str) -> str:
    await service.wait_until_serving()
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=f"{name}@example.org"))
    return sent.otp_code


async def _validate(service: Service, name: str, code: str) -> otp_pb2.ValidateCodeResponse.Result.ValueType:
    request = otp_pb2.ValidateCodeRequest(email=f"{name}@example.org", code=code)
    return (await service.otp.ValidateCode(request)).result


async def _settled(service: Service, mail_id: str) -> mail_pb2.Mail:
    async with asyncio.timeout(30):
        return [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail_id))][-1]


# The command.


@pytest.mark.parametrize(
    ("present", "key_id"), [("", "k1"), (_K1, "k2"), (f"{_K7},{_K2}", "k8"), (f"old:{_K1[3:]}", "k1")]
)
async def test_a_new_key(tmp_path: Path, present: str, key_id: str) -> None:
    """`keys new` prints an entry whose id comes after all present ones, and says on standard error what to do."""
    made = [await otpmail("keys", "new", here=tmp_path, OTP_KEYS=present) for _ in range(2)]
    entries = [parse_keys(ran.out.strip()) for ran in made]
    assert [(ran.code, ran.out.count("\n"), ran.err.count("\n")) for ran in made] == [(0, 1, 1)] * 2
    assert [list(entry) for entry in entries] == [[key_id]] * 2
    assert len({entry[key_id] for entry in entries}) == 2
    assert len(entries[0][key_id]) == 32
    assert ("put it in front of the present value" in made[0].err) is bool(present)
    assert not any(part in made[0].err for part in present.replace(",", ":").split(":") if len(part) > 10)


async def test_a_new_key_for_a_shared_store(tmp_path: Path) -> None:
    """Where other processes may read what this one writes, `keys new` says to let all know the new key first."""
    ran = await otpmail("keys", "new", here=tmp_path, OTP_KEYS=_K1, STORE_URL="redis://redis")
    assert (ran.code, ran.out[:3]) == (0, "k2:")
    assert ran.err.startswith("put it behind the present value of OTP_KEYS, with a comma between, and restart each ")
    wrong = await otpmail("keys", "new", here=tmp_path, OTP_KEYS=_K1, STORE_URL="nonsense")
    assert (wrong.code, wrong.err.partition(" the present")[0]) == (0, "put it in front of")


async def test_a_new_key_beside_wrong_ones(tmp_path: Path) -> None:
    """`keys new` ends with 2 where the present keys can't be read, and makes none."""
    ran = await otpmail("keys", "new", here=tmp_path, OTP_KEYS="k1")
    assert (ran.code, ran.out, ran.err) == (2, "", "OTP_KEYS: entry 1 is not id:base64\n")


# A rotation.


async def test_a_key_is_replaced(state: dict[str, Any], relay: Relay) -> None:
    """With the new key in front and the old one behind it, waiting mails are sent and live codes are valid."""
    async with Service(**state, OTP_KEYS=_K1) as service:
        codes = [await _send_code(service, "ada"), await _send_code(service, "bob")]
        await service.kill()
    async with Service(**state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.1}, OTP_KEYS=_K1) as service:
        waiting = await send(service, "first", request_id="r1")
        await service.stop()
    new = (await otpmail("keys", "new", OTP_KEYS=_K1)).out.strip()
    async with Service(**state, OTP_KEYS=f"{new},{_K1}") as service:
        assert (await _settled(service, waiting.id)).state == mail_pb2.Mail.STATE_RELAYED
        assert await _validate(service, "ada", codes[0]) == VALID
        codes.append(await _send_code(service, "eve"))
        again = await send(service, "first", request_id="r1")
        assert again.id == waiting.id
        await service.stop()
    async with Service(**state, OTP_KEYS=new) as service:
        assert await _validate(service, "eve", codes[2]) == VALID
        assert await _validate(service, "bob", codes[1]) != VALID  # its key is gone
        assert await service.stop() == 0
    assert names(relay.mails) == ["ada", "bob", "first", "eve"]


async def test_a_mail_whose_key_was_removed_waits_for_it(state: dict[str, Any], relay: Relay) -> None:
    """A mail of a removed key stays in the store, an error counts it, and it is sent once the key is back."""
    async with Service(**state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.1}, OTP_KEYS=_K1) as service:
        waiting = await send(service, "ada")
        await service.stop()
    async with Service(**state, OTP_KEYS=_K2) as service:
        assert (await service.wait_for_log("mails-unreadable"))["mails"] == 1
        assert await service.stop() == 0
    assert relay.mails == []
    async with Service(**state, OTP_KEYS=f"{_K2},{_K1}") as service:
        assert (await _settled(service, waiting.id)).state == mail_pb2.Mail.STATE_RELAYED
        assert await service.stop() == 0


# A backup.


async def test_a_file_is_restored(state: dict[str, Any], relay: Relay, tmp_path: Path) -> None:
    """A copy of the file after a stop, put back later, sends its mails with their ids; its codes can be deleted."""
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    async with Service(**state, OTP_KEYS=_K1) as service:
        codes = [await _send_code(service, name) for name in ("ada", "bob")]
        await service.stop()
    async with Service(**state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.1}, OTP_KEYS=_K1) as service:
        waiting = await send(service, "first")
        await service.stop()
    assert not path.with_name("store.db-wal").exists()
    shutil.copy(path, copy)
    async with Service(**state, OTP_KEYS=_K1) as service:
        assert (await _settled(service, waiting.id)).state == mail_pb2.Mail.STATE_RELAYED
        assert await _validate(service, "ada", codes[0]) == VALID
        await service.kill()
    shutil.copy(copy, path)
    path.with_name("store.db-wal").unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM code")
        connection.commit()
    async with Service(**state, OTP_KEYS=_K1) as service:
        assert (await _settled(service, waiting.id)).state == mail_pb2.Mail.STATE_RELAYED
        for name, code in zip(("ada", "bob"), codes, strict=True):
            assert await _validate(service, name, code) != VALID
        assert await service.stop() == 0
    assert names(relay.mails) == ["ada", "bob", "first", "first"]
    assert len({mail.content for mail in relay.mails if "first" in mail.recipients[0]}) == 1


async def _copy_of(server: RedisServer) -> bytes:
    """Have a server write its dump, and return that."""
    server.command("SAVE")
    return await asyncio.to_thread((server.directory / "dump.rdb").read_bytes)


async def _log_of(dump: bytes) -> RedisServer:
    """Return a server of its own, not started, whose AOF is made of a dump."""
    source, restored = RedisServer("redis-7", "--appendonly", "no"), RedisServer("redis-7")
    (source.directory / "dump.rdb").write_bytes(dump)
    with source:
        source.command("CONFIG", "SET", "appendonly", "yes")
        async with asyncio.timeout(30):
            while re.search("aof_rewrite_(in_progress|scheduled):1", source.command("INFO", "persistence")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        shutil.copytree(source.directory / "appendonlydir", restored.directory / "appendonlydir")
    return restored


async def test_a_server_is_restored(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A dump of a server becomes the AOF of another one, as operations.md says; its mails go again with their ids."""
    state = relay_settings(relay, certificates, tmp_path / "token") | {"OTP_RETURN_CODE": True}
    with RedisServer() as server:
        state |= redis_settings(server)
        async with Service(**state) as service:
            code = await _send_code(service, "ada")
            await service.stop()
        async with Service(**state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.1}) as service:
            waiting = await send(service, "first")
            await service.stop()
        dump = await _copy_of(server)
        async with Service(**state) as service:
            assert (await _settled(service, waiting.id)).state == mail_pb2.Mail.STATE_RELAYED
            assert await _validate(service, "ada", code) == VALID
            await service.stop()
    with await _log_of(dump) as restored:
        async with Service(**state | {"STORE_URL": restored.url}) as service:
            assert (await _settled(service, waiting.id)).state == mail_pb2.Mail.STATE_RELAYED
            assert await _validate(service, "ada", code) == VALID  # until it expires: the page says how to delete it
            assert await service.stop() == 0
    assert names(relay.mails) == ["ada", "first", "first"]
    assert len({mail.content for mail in relay.mails[1:]}) == 1
