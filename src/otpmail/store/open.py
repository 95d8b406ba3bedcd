"""Chooses the store by STORE_URL. The modules of a store are imported only if it is the one."""

from typing import TYPE_CHECKING

from otpmail.errors import StoreError
from otpmail.settings import MailSettings, OtpSettings, StoreSettings
from otpmail.store.challenges import Rules
from otpmail.store.memory import MemoryStore

if TYPE_CHECKING:
    from otpmail.settings.redis_url import RedisUrl
    from otpmail.store.redis import RedisStore
    from otpmail.store.sqlite import SqliteStore


def build_store(
    settings: StoreSettings, mail: MailSettings, otp: OtpSettings, rules: Rules
) -> "MemoryStore | SqliteStore | RedisStore":
    """Build the store, which remembers settled mails in half of the memory at most. Nothing is opened yet."""
    path = settings.path
    if (url := settings.redis) is not None:
        return _redis_store(url, settings, mail, otp, rules)
    if path is None:
        return MemoryStore(
            remember_seconds=mail.mail_remember_seconds,
            remember_count=mail.mail_remember_count,
            remember_octets=mail.memory_octets // 2,
            rules=rules,
        )
    from otpmail.store.sqlite import SqliteStore
    from otpmail.store.sqlite.database import Database

    return SqliteStore(
        Database(path),
        otp.derivation_keys,
        remember_seconds=mail.mail_remember_seconds,
        remember_count=mail.mail_remember_count,
        remember_octets=mail.memory_octets // 2,
        rules=rules,
    )


def _redis_store(
    url: "RedisUrl", settings: StoreSettings, mail: MailSettings, otp: OtpSettings, rules: Rules
) -> "RedisStore":
    from otpmail.store.redis import RedisStore
    from otpmail.store.redis.client import Client
    from otpmail.store.redis.dial import Access, OneServer

    if url.tls or url.layout != "single":
        raise StoreError("STORE_URL: this version connects to one server without TLS only")
    access = Access(user=url.user, password=url.password, database=url.database)
    return RedisStore(
        Client(OneServer(url.hosts[0]), access),
        settings.namespace,
        otp.derivation_keys,
        lease_seconds=settings.lease_seconds,
        remember_seconds=mail.mail_remember_seconds,
        remember_count=mail.mail_remember_count,
        remember_octets=mail.memory_octets // 2,
        allow_volatile=settings.allow_volatile,
        rules=rules,
    )
