"""Checks PROCESSES against the settings that several processes must share or divide."""

from collections.abc import Iterator

from otpmail.settings.mail import MailSettings
from otpmail.settings.problems import Problem
from otpmail.settings.server import ServerSettings
from otpmail.settings.store import MEMORY, StoreSettings


def conflicts_of_processes(server: ServerSettings, mail: MailSettings, store: StoreSettings) -> Iterator[Problem]:
    """Yield a problem for each setting that does not go with PROCESSES."""
    count = server.processes
    if count == 1:
        return
    if not store.is_shared:
        given = "sqlite:" if store.is_durable else MEMORY
        yield Problem(
            f"PROCESSES: is {count}, and a store of one process is set (STORE_URL={given}); set STORE_URL to "
            "redis://, which all processes share, or set PROCESSES=1",
            ("PROCESSES", "STORE_URL"),
        )
    for host in server.hosts:
        if host.path:
            yield Problem(
                f"PROCESSES: is {count}, and no two processes can serve one Unix socket ({host.host}); listen on an IP "
                "address in HOST, or set PROCESSES=1",
                ("PROCESSES", "HOST"),
            )
            break
    for name, total in (
        ("WORKERS", mail.workers),
        ("QUEUE_SIZE", mail.queue_size),
        ("MAX_CONNECTIONS", server.max_connections),
    ):
        if total < count:
            yield Problem(
                f"{name}: is {total} for all processes together, and PROCESSES is {count}; each needs a part of it, so "
                f"set {name} to {count} or more, or PROCESSES to {total}",
                (name, "PROCESSES"),
            )
    yield from _memory_for_each(count, mail)


def _memory_for_each(count: int, mail: MailSettings) -> Iterator[Problem]:
    needed, each = mail.least_memory_mb, (mail.memory_octets >> 20) // count
    if needed <= each:
        return
    given = "is not set and would be" if mail.memory_max_mb is None else "is"
    yield Problem(
        f"MEMORY_MAX_MB: {given} {mail.memory_octets >> 20} MiB for all processes together, {each} for each of "
        f"PROCESSES={count}, which can't hold a mail of MAIL_MAX_BYTES ({mail.mail_max_bytes}) while it is received "
        f"and written; set MEMORY_MAX_MB to {needed * count} or more, or lower PROCESSES or MAIL_MAX_BYTES",
        ("MEMORY_MAX_MB", "MAIL_MAX_BYTES", "PROCESSES"),
    )
