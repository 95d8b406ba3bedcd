"""Postfix for the integration tests: its own instance, with SASL from a file of its own."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from integration.servers import (
    DOMAIN,
    HOST,
    LATER,
    MAX_MAIL,
    PASSWORD,
    UNKNOWN,
    USER,
    MailServer,
    find_program,
    printed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOSTNAME = f"mail.{DOMAIN}"
_OWNED_QUEUES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("maildrop", "private", "public", "saved", "trace"),
)

# Only what takes mail in and delivers it to the Maildir. No service is in a chroot (the fifth column): there, smtpd
# would find neither the certificate nor SASL's file.
_SERVICES = """\
{host}:{port}     inet  n  -  n  -      -  smtpd
{host}:{tls_port} inet  n  -  n  -      -  smtpd -o smtpd_tls_wrappermode=yes
postlog  unix-dgram n   -  n  -      1  postlogd
anvil    unix  -  -  n  -      1  anvil
cleanup  unix  n  -  n  -      0  cleanup
qmgr     unix  n  -  n  300    1  qmgr
tlsmgr   unix  -  -  n  1000?  1  tlsmgr
rewrite  unix  -  -  n  -      -  trivial-rewrite
proxymap unix  -  -  n  -      -  proxymap
bounce   unix  -  -  n  -      0  bounce
defer    unix  -  -  n  -      0  bounce
trace    unix  -  -  n  -      0  bounce
error    unix  -  -  n  -      -  error
retry    unix  -  -  n  -      -  error
virtual  unix  -  n  n  -      -  virtual
"""

_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {file}
mech_list: PLAIN LOGIN CRAM-MD5
"""


class Postfix(MailServer):
    """A private Postfix, independent of one that the machine may run."""

    name: ClassVar[str] = "Postfix"
    _started: ClassVar[str] = "daemon started"
    _account: ClassVar[str] = "postfix"
    _recipient: ClassVar[re.Pattern[bytes]] = re.compile(rb"(?:[^\n]+\n)*?X-Original-To: ([^\n]+)\n")

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be started on this machine, None if it can."""
        for program in ("postconf", "saslpasswd2"):
            if find_program(program) is None:
                return f"Postfix is not installed ({program} is missing): run scripts/install-servers as root"
        return None if os.geteuid() == 0 else "Postfix can be started by root only"

    @cached_property
    def version(self) -> str:
        """The version of the installed program, such as 3.7.11."""
        return printed(_program("postconf"), "-dh", "mail_version")

    def _configure(self, directory: Path, cert_file: Path, key_file: Path) -> None:
        config = directory / "config"
        (config / "sasl").mkdir(parents=True)
        self._make_queue(directory)
        settings = self._main(directory, cert_file, key_file) | self._settings
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (config / "main.cf").write_text(lines, encoding="utf-8")
        # Postfix waits until the file is two seconds old, since it may still be written.
        os.utime(config / "main.cf", (0, 0))
        services = _SERVICES.format(host=HOST, port=self.port, tls_port=self.tls_port)
        (config / "master.cf").write_text(services, encoding="utf-8")
        self._make_user(config / "sasl", directory / "sasldb")

    def _command(self, directory: Path) -> Sequence[str | Path]:
        # Not `postfix start-fg`: between us and the master it puts a shell, and checks that take two seconds.
        master = Path(printed(_program("postconf"), "-dh", "daemon_directory")) / "master"
        return [master, "-c", directory / "config", "-s"]

    def _make_queue(self, directory: Path) -> None:
        """Make the directories that `postfix check` would make, at once."""
        (directory / "queue" / "pid").mkdir(parents=True)
        for queue in _OWNED_QUEUES:
            self._own(directory / "queue" / queue)
        self._own(directory / "data")

    def _make_user(self, sasl: Path, file: Path) -> None:
        (sasl / "smtpd.conf").write_text(_SASL.format(file=file), encoding="utf-8")
        subprocess.run(
            [_program("saslpasswd2"), "-p", "-c", "-f", file, "-u", _HOSTNAME, USER],
            input=PASSWORD.encode(),
            capture_output=True,
            check=True,
        )
        shutil.chown(file, self._account)

    def _main(self, directory: Path, cert_file: Path, key_file: Path) -> dict[str, str]:
        account = pwd.getpwnam(self._account)
        return {
            "compatibility_level": "3.6",
            "queue_directory": f"{directory}/queue",
            "data_directory": f"{directory}/data",
            "maillog_file": f"{directory}/log/mail",
            "maillog_file_prefixes": str(directory),
            "myhostname": _HOSTNAME,
            "mynetworks": "",
            "mydestination": "",
            "alias_maps": "",
            "inet_interfaces": HOST,
            "inet_protocols": "ipv4",
            "message_size_limit": str(MAX_MAIL),
            # In: clients that have signed in, over TLS, for our domain.
            "smtpd_peername_lookup": "no",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(cert_file),
            "smtpd_tls_key_file": str(key_file),
            "smtpd_tls_auth_only": "yes",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_local_domain": "$myhostname",
            "smtpd_sasl_security_options": "noanonymous",
            "cyrus_sasl_config_path": f"{directory}/config/sasl",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_recipient_restrictions": (
                "reject_unauth_destination, check_recipient_access inline:{"
                f" {{ {UNKNOWN} = 550 5.1.1 No such user }},"
                f" {{ {LATER} = 451 4.2.1 Mailbox busy, try later }} }}"
            ),
            # Thousands of mails from one client are what it is here for.
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_event_limit_exceptions": "static:all",
            "in_flow_delay": "0",
            # Out: to the Maildir only; a substitution would be needed for one a recipient, and virtual(8) refuses it.
            "default_transport": "error:no mail leaves this machine",
            "relay_transport": "error:no mail leaves this machine",
            "virtual_mailbox_domains": DOMAIN,
            "virtual_mailbox_base": str(directory),
            "virtual_mailbox_maps": "static:mail/",
            "virtual_minimum_uid": "1",
            "virtual_uid_maps": f"static:{account.pw_uid}",
            "virtual_gid_maps": f"static:{account.pw_gid}",
            "virtual_mailbox_limit": "0",
        }


def _program(name: str) -> Path:
    found = find_program(name)
    if found is None:
        raise FileNotFoundError(name)
    return found
