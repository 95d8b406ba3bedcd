"""Reloads what can change while the service runs: credentials, authorities, templates, the level of the log.

All is read and checked in a thread, and taken in one turn of the loop. A wrong value leaves the one before.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from otpmail.app import App
from otpmail.compose.catalog import Templates
from otpmail.errors import SettingsError
from otpmail.relays.dialler import Credentials
from otpmail.relays.secure import read_identity, tls_context
from otpmail.relays.token import Token
from otpmail.settings import RelaySettings, Settings, read_sources
from otpmail.settings.portions import WHOLE, Portion
from otpmail.settings.reload import reload
from otpmail.telemetry.logs import LEVELS, log_event, set_level
from otpmail.threads import call_detached

_READ_SECONDS = 30.0


@dataclass
class _Found:
    """The result of a reload: values to use from now on, and lines to log about them."""

    settings: Settings
    templates: Templates
    credentials: list[Credentials] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    """The first line about each setting that is wrong, by its name."""
    changed: dict[str, None] = field(default_factory=dict)
    need_restart: tuple[str, ...] = ()

    def add_problems(self, *lines: str) -> None:
        """Keep lines that open with a setting's name, unless there is one about it."""
        for line in lines:
            self.problems.setdefault(line.partition(":")[0], line)

    def keep(self, *names: str) -> None:
        """Say of these settings that their new values are not taken."""
        for name in names:
            self.changed.pop(name, None)


class Reloader:
    """Reloads the settings of `app` at each request, one after the other. Those in `fixed` stay (`Settings.load`).

    `settings` are the part of this process, its `portion`.
    """

    def __init__(self, app: App, settings: Settings, fixed: Mapping[str, str | None], portion: Portion = WHOLE) -> None:
        self._app = app
        self._fixed = fixed
        self._portion = portion
        self._settings = settings
        self._requested = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Reloader requested={self._requested.is_set()}>"

    def request(self) -> None:
        """Reload soon. Requests that come before that count as one."""
        self._requested.set()

    async def run(self) -> None:
        """Reload whenever it is requested, until cancelled. A reload that fails changes nothing, and is logged."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                self._take(await call_detached(self._read, timeout=_READ_SECONDS))
            except TimeoutError:
                text = f"reload: the files could not be read in {_READ_SECONDS:g} s; all values before are kept"
                log_event(logging.ERROR, "reload-failed", text)
            except Exception:
                logging.getLogger("otpmail").exception("the reload failed; all values before are kept")

    def _read(self) -> _Found:
        """Read everything again. Runs in a thread, and changes nothing that the loop uses."""
        settings, problems, changed, need_restart = reload(self._settings, read_sources(), self._fixed, self._portion)
        found = _Found(settings, self._app.templates, changed=dict.fromkeys(changed), need_restart=need_restart)
        found.add_problems(*problems)
        self._read_templates(found)
        for old, relay in zip(self._app.credentials, settings.relays, strict=True):
            found.credentials.append(_read_credentials(old, relay, found))
        found.settings = replace(found.settings, relays=tuple(each.settings for each in found.credentials))
        return found

    def _read_templates(self, found: _Found) -> None:
        try:
            found.templates = Templates.load(found.settings.otp, found.settings.product.product)
        except SettingsError as error:
            found.add_problems(*error.problems)
            found.settings = replace(found.settings, otp=self._settings.otp)
            found.keep("OTP_TEMPLATES_DIR", "OTP_LOCALE")
        else:
            if found.templates.files != self._app.templates.files:
                found.changed["OTP_TEMPLATES_DIR"] = None

    def _take(self, found: _Found) -> None:
        levels = self._settings.server.log_level, found.settings.server.log_level
        set_level(min(levels, key=LEVELS.index))  # the old level or the new one may show these lines
        for name, problem in found.problems.items():
            log_event(logging.ERROR, "reload-failed", f"reload: {problem}; the value before is kept", setting=name)
        text = f"reloaded: {', '.join(found.changed) or self._nothing(found)}"
        if found.need_restart:
            text += f"; a restart is needed for {', '.join(found.need_restart)}"
        changed, need_restart = list(found.changed), list(found.need_restart)
        log_event(logging.INFO, "reloaded", text, changed=changed, need_restart=need_restart)
        set_level(levels[1])
        self._settings = found.settings
        self._app.renew(found.templates, found.credentials)

    def _nothing(self, found: _Found) -> str:
        """Return words where no setting has another value: files of callers have a line of their own, which follows."""
        nothing = "nothing else has changed" if found.problems else "nothing has changed"
        if not (files := self._app.watched_files):
            return nothing
        return f"{nothing} so far; {' and '.join(files)} {'is' if len(files) == 1 else 'are'} read next"


def _read_credentials(old: Credentials, settings: RelaySettings, found: _Found) -> Credentials:
    """Read the files of one relay: certificates, and the token. A wrong one leaves the one before."""
    token = old.token
    tls, identity, settings = _read_certificates(old, settings, found)
    if (fresh_token := Token.of(settings)) is not None:
        try:
            fresh_token.refresh()
        except ValueError as error:
            found.add_problems(f"EMAIL_TOKEN_FILE: {error}")
            found.keep("EMAIL_TOKEN_FILE")
            settings = settings.model_copy(update={"token_file": old.settings.token_file})
        else:
            if token is None or settings.token_file != old.settings.token_file or fresh_token.last != token.last:
                found.changed["EMAIL_TOKEN_FILE"] = None
                token = fresh_token
    return Credentials(settings, tls, token, identity)


def _read_certificates(
    old: Credentials, settings: RelaySettings, found: _Found
) -> tuple[ssl.SSLContext, bytes, RelaySettings]:
    """Read the certificates of authorities and our own, all of which stay the same if one is wrong."""
    try:
        fresh, identity = tls_context(settings), read_identity(settings)
    except SettingsError as error:
        found.add_problems(*error.problems)
        found.keep("EMAIL_CA_FILE", "EMAIL_CERT_FILE", "EMAIL_KEY_FILE")
        kept = {name: getattr(old.settings, name) for name in ("ca_file", "cert_file", "key_file")}
        return old.tls, old.identity, settings.model_copy(update=kept)
    has_other_authorities = fresh.get_ca_certs(binary_form=True) != old.tls.get_ca_certs(binary_form=True)
    if has_other_authorities:
        found.changed["EMAIL_CA_FILE"] = None
    if identity != old.identity:
        found.changed["EMAIL_CERT_FILE"] = None
    is_new = has_other_authorities or identity != old.identity
    return fresh if is_new else old.tls, identity, settings
