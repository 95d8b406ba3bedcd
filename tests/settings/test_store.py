"""The setting of the store: which URLs there are, and that a durable store needs keys that outlive the process."""

import base64
from pathlib import Path
from typing import Any

import pytest

from otpmail.settings.redis_url import Layout, RedisUrl
from settings.conftest import Load, Problems

KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"


def test_memory_is_the_default(load: Load) -> None:
    """Without STORE_URL everything is in memory, and no key is needed."""
    settings = load().store
    assert (settings.url, settings.path, settings.is_durable) == ("memory:", None, False)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:/var/lib/otpmail/store.db", "/var/lib/otpmail/store.db"),
        ("SQLite:/var/lib/otpmail/store.db", "/var/lib/otpmail/store.db"),
        ("sqlite:///var/lib/otpmail/store.db", "/var/lib/otpmail/store.db"),
        ("sqlite:/a/../b/store.db", "/b/store.db"),
        ("sqlite:/with a blank/and:colon", "/with a blank/and:colon"),
    ],
)
def test_a_file(load: Load, url: str, path: str) -> None:
    """The path follows the scheme; the three slashes of other programs' URLs are read too."""
    settings = load(STORE_URL=url, OTP_KEYS=KEYS).store
    assert (settings.path, settings.is_durable) == (Path(path), True)


def test_a_relative_file(load: Load, tmp_path: Path) -> None:
    """A relative path is one in the working directory."""
    assert load(STORE_URL="sqlite:store.db", OTP_KEYS=KEYS).store.path == tmp_path / "store.db"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://user:hunter2@example.org", "no other store is known"),
        ("sqlite", "no other store is known"),
        ("memory", "no other store is known"),
        ("memory:x", "no other store is known"),
        ("/var/lib/hunter2.db", "no other store is known"),
        ("redis", "no other store is known"),
        ("redis+cluster", "no other store is known"),
        ("sqlite:", "where PATH is that of a file"),
        ("sqlite:/var/lib/", "where PATH is that of a file"),
        ("sqlite:///var/lib/store.db?mode=rw", "a file has no options, so leave out what begins with ?"),
        ("sqlite::memory:", "for a store in memory write memory:"),
        ("sqlite://var/lib/store.db", "write an absolute path as sqlite:/var/lib/otpmail/store.db"),
    ],
)
def test_other_urls(problems: Problems, url: str, words: str) -> None:
    """The error is one line that says what there is, and repeats nothing of a URL that may hold a password."""
    (line,) = problems(STORE_URL=url)
    assert line.startswith("STORE_URL: must be memory:, sqlite:PATH or redis://host:6379")
    assert line.endswith(words)
    assert "hunter2" not in line


def test_a_durable_store_needs_keys(problems: Problems, load: Load) -> None:
    """With a random key the codes and mails of a file could not be read after a restart."""
    (line,) = problems(STORE_URL="sqlite:store.db")
    assert line.startswith("OTP_KEYS: is needed with STORE_URL")
    assert load(STORE_URL="sqlite:store.db", OTP_KEYS=KEYS).otp.derivation_keys


def _redis(layout: Layout, *hosts: tuple[str, int], tls: bool = False, **others: Any) -> RedisUrl:
    values: dict[str, Any] = {"user": "", "password": "", "database": 0, "service": ""} | others
    return RedisUrl(layout, tls, hosts, **values)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://redis", _redis("single", ("redis", 6379))),
        (
            "rediss://ada:hunter2@r:1/3",
            _redis("single", ("r", 1), tls=True, user="ada", password="hunter2", database=3),
        ),
        ("REDIS://my_redis", _redis("single", ("my_redis", 6379))),
        ("redis://:p%40ss%2F@[::1]:7/", _redis("single", ("::1", 7), password="p@ss/")),
        (
            "redis+sentinel://ada:hunter2@a,b:7/main/2",
            _redis("sentinel", ("a", 26379), ("b", 7), user="ada", password="hunter2", database=2, service="main"),
        ),
        ("rediss+cluster://a,10.0.0.1:7", _redis("cluster", ("a", 6379), ("10.0.0.1", 7), tls=True)),
    ],
)
def test_servers_of_redis(load: Load, url: str, read: RedisUrl) -> None:
    """A URL names one server, the Sentinels of a service, or nodes of a cluster; two s stand for TLS."""
    settings = load(STORE_URL=url, OTP_KEYS=KEYS).store
    assert (settings.redis, settings.path, settings.is_durable) == (read, None, True)
    assert "hunter2" not in repr(settings.redis)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis:hunter2", "must be redis://user:password@host:6379/0"),
        ("rediss://", "has no host; write rediss://user:password@host:6379/0"),
        ("redis://user:hunter2@", "has no host; write redis://user:password@host:6379/0"),
        ("redis://[hunter2", "has a host that is neither a name nor an IP address"),
        ("redis://hun ter2", "has a host that is neither a name nor an IP address"),
        ("redis://hunter/2@redis", "has a user or password with a / ? or # that is not encoded"),
        ("redis:///run/hunter2.sock", "has no host; write redis://user:password@host:6379/0"),
        (
            "valkey://hunter2",
            "must be memory:, sqlite:PATH or redis://host:6379; for Valkey write redis:// or rediss:// too",
        ),
        ("redis://red\nis:hunter2@redis", "holds a control character, such as a line end"),
        ("redis://user:hunter%@redis", "has a % in the password that two hexadecimal digits do not follow"),
        ("redis://user:%ff@redis", "has a password that is not text in UTF-8"),
        ("redis://redis?password=hunter2", "has options, which are settings here"),
        ("redis://redis:hunter2", "has a port that is no whole number from 1 to 65535"),
        ("redis://redis:0", "has a port that is no whole number from 1 to 65535"),
        ("redis://redis/hunter2", "has a database that is no whole number below 65536"),
        ("redis://a,b", "names several hosts; write redis+sentinel:// or redis+cluster://"),
        ("redis+sentinel://a,b", "has no service, the name of the master that the Sentinels watch"),
        ("redis+cluster://a/1", "has a database, which no cluster has"),
    ],
)
def test_wrong_urls_of_redis(problems: Problems, url: str, words: str) -> None:
    """The error is one line that names the wrong part, and repeats nothing that may be a password."""
    (line,) = problems(STORE_URL=url, OTP_KEYS=KEYS)
    assert line.startswith(f"STORE_URL: {words}")
    assert "hunter" not in line


def test_a_password_from_a_file(load: Load, problems: Problems, tmp_path: Path) -> None:
    """The password comes from one place: the URL, STORE_PASSWORD or the file of STORE_PASSWORD_FILE."""
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    redis = load(STORE_URL="redis://ada@redis", STORE_PASSWORD_FILE=str(file), OTP_KEYS=KEYS).store.redis
    assert redis is not None
    assert (redis.user, redis.password) == ("ada", "hunter2")
    (line,) = problems(STORE_URL="redis://ada:hunter3@redis")
    assert line == "STORE_PASSWORD_FILE: is set beside a password in STORE_URL; set one of the two"


def test_settings_of_tls_without_tls(problems: Problems) -> None:
    """A name that no certificate is checked for is a mistake: the traffic would be in the clear."""
    (line,) = problems(STORE_URL="redis+sentinel://redis/master", STORE_TLS_NAME="redis", OTP_KEYS=KEYS)
    assert line == "STORE_TLS_NAME: has no effect without TLS; begin STORE_URL with rediss+sentinel://"


@pytest.mark.parametrize(
    ("url", "replicas"), [("redis://a", 0), ("redis+sentinel://a/m", 1), ("redis+cluster://a", 1), ("memory:", 0)]
)
def test_replicas_to_wait_for(load: Load, url: str, replicas: int) -> None:
    """Where a replica may take over, one must have what a code's check has changed, unless the setting says else."""
    assert load(STORE_URL=url, OTP_KEYS=KEYS).store.replicas_to_wait_for == replicas
    assert load(STORE_URL=url, OTP_KEYS=KEYS, STORE_WAIT_REPLICAS="2").store.replicas_to_wait_for == 2


def test_a_namespace(load: Load, problems: Problems) -> None:
    """Two services on one server keep apart by STORE_NAMESPACE, which is part of each key."""
    assert load(STORE_NAMESPACE="otpmail-staging").store.namespace == "otpmail-staging"
    (line,) = problems(STORE_NAMESPACE="a}b")
    assert line.endswith("must be 1 to 64 of A-Z a-z 0-9 . _ -")


def test_a_lease(problems: Problems) -> None:
    """STORE_LEASE_SECONDS names its bounds."""
    for value in ("1ms", "301"):
        (line,) = problems(STORE_LEASE_SECONDS=value)
        assert line.endswith(", or a number of seconds from 1 to 300")
