"""Chooses the store by STORE_URL. The modules of a store are imported only if it is the one."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from otpmail.settings import MailSettings, OtpSettings, StoreSettings
from otpmail.store.challenges import Proofs, Rules
from otpmail.store.memory import MemoryStore
from otpmail.store.retention import Retention

if TYPE_CHECKING:
    from otpmail.settings.redis_url import RedisUrl
    from otpmail.store.redis import RedisStore
    from otpmail.store.sqlite import SqliteStore

AnyStore: TypeAlias = "MemoryStore | SqliteStore | RedisStore"


def build_store(
    settings: StoreSettings,
    mail: MailSettings,
    otp: OtpSettings,
    *,
    rules: Rules,
    proofs: Proofs,
    clock: Callable[[], float] | None = None,
) -> AnyStore:
    """Build the store, not yet open. It remembers settled mails in half of the memory, and addresses in a quarter.

    `clock` is that of a store in memory; others keep times that later processes read.
    """
    retention = Retention(
        seconds=mail.mail_remember_seconds,
        count=mail.mail_remember_count,
        octets=mail.memory_octets // 2,
        request_seconds=mail.request_seconds,
        request_count=mail.mail_request_count,
        addresses=mail.suppressions_max,
        address_octets=mail.memory_octets // 4,
    )
    path = settings.path
    if (url := settings.redis) is not None:
        return _redis_store(url, settings, otp.derivation_keys, retention=retention, rules=rules, proofs=proofs)
    if path is None:
        return MemoryStore(clock, retention=retention, rules=rules)
    from otpmail.store.sqlite import SqliteStore
    from otpmail.store.sqlite.database import Database

    return SqliteStore(Database(path), otp.derivation_keys, retention=retention, rules=rules)


def _redis_store(
    url: "RedisUrl",
    settings: StoreSettings,
    keys: Mapping[str, bytes],
    *,
    retention: Retention,
    rules: Rules,
    proofs: Proofs,
) -> "RedisStore":
    from otpmail.store.redis import RedisStore
    from otpmail.store.redis.access import access_to, locator
    from otpmail.store.redis.client import Client
    from otpmail.store.redis.keys import Keys

    access = access_to(url, settings)
    replicas = settings.replicas_to_wait_for
    return RedisStore(
        Client(locator(url, access, settings), access, replicas=replicas, mark=Keys(settings.namespace).wait),
        settings.namespace,
        keys,
        lease_seconds=settings.lease_seconds,
        retention=retention,
        allow_volatile=settings.allow_volatile,
        is_cluster=url.layout == "cluster",
        replicas=replicas,
        rules=rules,
        proofs=proofs,
    )
