"""Chooses the store by STORE_URL. The modules of a store are imported only if it is the one."""

from typing import TYPE_CHECKING

from otpmail.errors import StoreError
from otpmail.settings import MailSettings, OtpSettings, StoreSettings
from otpmail.store.challenges import Rules
from otpmail.store.memory import MemoryStore

if TYPE_CHECKING:
    from otpmail.store.sqlite import SqliteStore


def build_store(
    settings: StoreSettings, mail: MailSettings, otp: OtpSettings, rules: Rules
) -> "MemoryStore | SqliteStore":
    """Build the store, which remembers settled mails in half of the memory at most. Nothing is opened yet."""
    path = settings.path
    if settings.redis is not None:
        raise StoreError("STORE_URL: this version has no store in Redis yet")
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
