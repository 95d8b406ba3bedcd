"""Chooses the store by STORE_URL. The modules of a store are imported only if it is the one."""

from collections.abc import Callable
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
    """Build the store, which remembers settled mails in half of the memory at most. Nothing is opened yet.

    `clock` is that of a store in memory; others keep times that later processes read.
    """
    retention = Retention(
        seconds=mail.mail_remember_seconds,
        count=mail.mail_remember_count,
        octets=mail.memory_octets // 2,
        request_seconds=mail.request_seconds,
        request_count=mail.mail_request_count,
    )
    path = settings.path
    if (url := settings.redis) is not None:
        return _redis_store(url, settings, mail, otp, retention=retention, rules=rules, proofs=proofs)
    if path is None:
        return MemoryStore(
            clock,
            retention=retention,
            most_addresses=mail.suppressions_max,
            address_octets=mail.memory_octets // 4,
            rules=rules,
        )
    from otpmail.store.sqlite import SqliteStore
    from otpmail.store.sqlite.database import Database

    return SqliteStore(
        Database(path),
        otp.derivation_keys,
        retention=retention,
        most_addresses=mail.suppressions_max,
        address_octets=mail.memory_octets // 4,
        rules=rules,
    )


def _redis_store(
    url: "RedisUrl",
    settings: StoreSettings,
    mail: MailSettings,
    otp: OtpSettings,
    *,
    retention: Retention,
    rules: Rules,
    proofs: Proofs,
) -> "RedisStore":
    from otpmail.store.redis import RedisStore
    from otpmail.store.redis.access import access_to, locator
    from otpmail.store.redis.client import Client

    access = access_to(url, settings)
    replicas = settings.replicas_to_wait_for
    return RedisStore(
        Client(locator(url, access, settings), access, replicas=replicas),
        settings.namespace,
        otp.derivation_keys,
        lease_seconds=settings.lease_seconds,
        retention=retention,
        most_addresses=mail.suppressions_max,
        address_octets=mail.memory_octets // 4,
        allow_volatile=settings.allow_volatile,
        is_cluster=url.layout == "cluster",
        replicas=replicas,
        rules=rules,
        proofs=proofs,
    )
