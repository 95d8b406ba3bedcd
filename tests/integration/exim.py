"""Exim for the integration tests, from the folder that scripts/install-servers unpacks it into."""

from __future__ import annotations

import os
import pwd
import re
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

_PROJECT = Path(__file__).parents[2]

_SECTIONS = """\
begin acl
recipient:
  deny   !authenticated = *
         message = 530 5.7.0 Authentication required
  deny   !domains = {domain}
         message = 550 5.7.1 Relaying denied
  deny   local_parts = {unknown}
         message = 550 5.1.1 No such user
  defer  local_parts = {later}
         message = 451 4.2.1 Mailbox busy, try later
  accept

begin routers
all:
  driver = accept
  domains = {domain}
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {mail}
  maildir_format
  envelope_to_add
  return_path_add

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{user}}}}} {{eq{{$auth3}}{{{password}}}}} }}}}
  server_set_id = $auth2
  server_advertise_condition = ${{if def:tls_in_cipher}}
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{ {{eq{{$auth1}}{{{user}}}}} {{eq{{$auth2}}{{{password}}}}} }}}}
  server_set_id = $auth1
  server_advertise_condition = ${{if def:tls_in_cipher}}
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
  server_set_id = $auth1
  server_advertise_condition = ${{if def:tls_in_cipher}}
"""


class Exim(MailServer):
    """An Exim of its own, which need not be installed: it trusts a configuration given by root."""

    name: ClassVar[str] = "Exim"
    _started: ClassVar[str] = "daemon started"
    _account: ClassVar[str] = "Debian-exim"
    _recipient: ClassVar[re.Pattern[bytes]] = re.compile(rb"(?:[^\n]+\n)*?Envelope-to: ([^\n]+)\n")

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be started on this machine, None if it can."""
        if _find() is None or cls._account not in {account.pw_name for account in pwd.getpwall()}:
            return "Exim is not installed: run scripts/install-servers as root"
        return None if os.geteuid() == 0 else "Exim can be started by root only"

    @cached_property
    def version(self) -> str:
        """The version of the installed program, such as 4.96."""
        return printed(_program(), "-C", "/dev/null", "-bV").split()[2]

    def _configure(self, directory: Path, cert_file: Path, key_file: Path) -> None:
        self._own(directory / "spool")
        settings = self._main(directory, cert_file, key_file) | self._settings
        sections = _SECTIONS.format(
            domain=DOMAIN,
            unknown=UNKNOWN.partition("@")[0],
            later=LATER.partition("@")[0],
            mail=directory / "mail",
            user=USER,
            password=PASSWORD,
        )
        config = "".join(f"{name} = {value}\n" for name, value in settings.items()) + sections
        (directory / "config").write_text(config, encoding="utf-8")

    def _command(self, directory: Path) -> Sequence[str | Path]:
        # Mails are delivered at once. The queue is run for those that a `restart` has interrupted.
        return [_program(), "-C", directory / "config", "-bdf", "-q5s"]

    def _main(self, directory: Path, cert_file: Path, key_file: Path) -> dict[str, str]:
        return {
            "primary_hostname": f"mail.{DOMAIN}",
            "spool_directory": f"{directory}/spool",
            "log_file_path": f"{directory}/log/%s",
            "pid_file_path": f"{directory}/pid",
            "exim_path": str(_program()),
            "keep_environment": "",
            # The process that has taken a mail in delivers it too, as the account it works as. Exim is only unpacked,
            # so no set-user-ID program would make it root again.
            "deliver_drop_privilege": "true",
            "local_interfaces": HOST,
            "daemon_smtp_ports": f"{self.port} : {self.tls_port}",
            "daemon_startup_retries": "0",  # it would wait 30 s for a port that is taken
            "tls_on_connect_ports": str(self.tls_port),
            "tls_advertise_hosts": "*",
            "tls_certificate": str(cert_file),
            "tls_privatekey": str(key_file),
            "chunking_advertise_hosts": "*",
            "smtputf8_advertise_hosts": "*",
            "acl_smtp_rcpt": "recipient",
            "message_size_limit": str(MAX_MAIL),
            # Thousands of mails from one client are what it is here for, and each is delivered at once.
            "smtp_connect_backlog": "1000",  # with its 20, half of 80 at once wait for a greeting that never comes
            "smtp_accept_max": "0",
            "smtp_accept_max_per_connection": "0",
            "smtp_accept_queue_per_connection": "0",
        }


def _find() -> Path | None:
    servers = _PROJECT / os.environ.get("OTPMAIL_SERVERS", ".servers")
    return find_program("exim4", servers / "exim4" / "usr" / "sbin")


def _program() -> Path:
    found = _find()
    if found is None:
        raise FileNotFoundError("exim4")
    return found
