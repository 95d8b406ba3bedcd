"""How the server of the settings is reached: sign-in, TLS, and who knows where it is."""

import ssl

from redis.crc import key_slot

from otpmail.errors import StoreError
from otpmail.settings import StoreSettings
from otpmail.settings.redis_url import RedisUrl
from otpmail.store.redis.dial import Access, ByCluster, BySentinel, Locator, OneServer


def access_to(url: RedisUrl, settings: StoreSettings) -> Access:
    """Return how to sign in. Raises StoreError for a certificate or a key that can't be used."""
    context = _context(settings) if url.tls else None
    return Access(
        user=url.user, password=url.password, database=url.database, context=context, tls_name=settings.tls_name
    )


def locator(url: RedisUrl, access: Access, settings: StoreSettings) -> Locator:
    """Return what finds the master."""
    if url.layout == "sentinel":
        own = Access(password=settings.password_of_sentinels, context=access.context, tls_name=access.tls_name)
        return BySentinel(url.hosts, url.service, own)
    if url.layout == "cluster":
        return ByCluster(url.hosts, key_slot(settings.namespace.encode()), access)
    return OneServer(url.hosts[0])


def _context(settings: StoreSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError):
        raise StoreError(f"STORE_CA_FILE: {settings.ca_file} holds no certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except (ssl.SSLError, OSError):
            words = "can't be used with its key, which is in the same file or in STORE_KEY_FILE"
            raise StoreError(f"STORE_CERT_FILE: {settings.cert_file} {words}") from None
    return context
