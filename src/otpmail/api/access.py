"""Reads who may call over the port, and the TLS of the port: at the start, and again when one of the files changes.

The files are CALLERS_FILE and those of TLS. A faulty file leaves what was in force before.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from otpmail.api.auth import Authenticator
from otpmail.api.methods import METHODS
from otpmail.api.watched_files import ChangeWatch, WatchedFiles
from otpmail.callers import table_of
from otpmail.errors import SettingsError
from otpmail.events import AccessKept, AccessRenewed, CertificateDoubtful, Observer, TemplateMisspelt
from otpmail.otp.terms import Profiles, TermsOfCallers
from otpmail.settings import OtpSettings, ServerSettings
from otpmail.settings.callers import CallersFile, read_callers
from otpmail.settings.certificates import CertificateFiles
from otpmail.threads import call_detached

LOOK_SECONDS = 0.25
"""Between two looks at the files. They are read once two looks agree, so that a change is in force within a second."""

_OWN_LOOK_SECONDS = 30.0  # between two looks of the loop itself, which finds a thread that hangs
_READ_SECONDS = 30.0
_HUNG_SECONDS = 600.0  # to the next look after one that hung in the file system for that time

ValueT = TypeVar("ValueT")


class _Callers(NamedTuple):
    """The content of CALLERS_FILE, and the terms of codes that its profiles set."""

    file: CallersFile
    terms: TermsOfCallers


class Access:
    """The authentication of callers, and the TLS of the port. `run` keeps both up to date.

    Raises SettingsError for a file that can't be used.
    """

    def __init__(
        self,
        settings: ServerSettings,
        observer: Observer,
        profiles: Profiles,
        *,
        look_seconds: float = LOOK_SECONDS,
        own_look_seconds: float = _OWN_LOOK_SECONDS,
        read_seconds: float = _READ_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._look_seconds, self._own_look_seconds, self._read_seconds = look_seconds, own_look_seconds, read_seconds
        self._settings = settings
        self._observer = observer
        self._profiles = profiles
        self._is_requested = False
        self._wakes = asyncio.Event()
        self._callers: WatchedFiles[_Callers] | None = None
        self._certificates: WatchedFiles[CertificateFiles] | None = None
        if (path := settings.callers_file) is not None:
            self._callers = WatchedFiles(
                "CALLERS_FILE", (path,), partial(_read_callers, settings, profiles, path), lambda: profiles.folders
            )
            profiles.renew(self._callers.value.terms)
        if (path := settings.tls_cert_file) is not None:
            files = [file for file in (path, settings.tls_key_file, settings.tls_client_ca_file) if file is not None]
            self._certificates = WatchedFiles("TLS_CERT_FILE", files, partial(_read_certificates, settings, path))
        self.authenticator = self._build_authenticator()
        self._followers: list[Callable[[CertificateFiles], None]] = []

    def __repr__(self) -> str:
        return f"<Access {self.authenticator!r}{', TLS' * (self._certificates is not None)}>"

    @property
    def shows_tokens_on(self) -> str:
        """The first host that other machines reach where tokens come without TLS; empty without one."""
        door = self._settings.door_of_strangers
        if door is None or self._certificates is not None or self._callers is None:
            return ""
        return door.host if self._callers.value.file.callers.by_token else ""

    @property
    def certificate_not_after(self) -> float | None:
        """When the certificate of the port expires, in seconds since the epoch; None without TLS."""
        return None if self._certificates is None else self._certificates.value.validity.ends

    @property
    def certificates(self) -> CertificateFiles | None:
        """The certificate of the port, and the authorities of its callers' certificates; None without TLS."""
        return None if self._certificates is None else self._certificates.value

    @property
    def watched(self) -> Sequence[str]:
        """The settings whose files are read again when they change."""
        return [files.setting for files in self._watched]

    @property
    def _watched(self) -> Sequence[WatchedFiles[Any]]:
        return [files for files in (self._callers, self._certificates) if files is not None]

    def follow(self, take: Callable[[CertificateFiles], None]) -> None:
        """Call `take` with each later certificate of the port."""
        self._followers.append(take)

    def request(self) -> None:
        """Read the files again soon, whether or not they look changed."""
        self._is_requested = True
        self._wakes.set()

    async def run(self) -> None:
        """Read the files whenever they change or it is requested, until cancelled; return at once if there are none.

        At the start and at each reading, the observer learns of certificates that are refused, or will be soon, and of
        templates with new names that are probably misspelt.
        """
        self._notify_of_doubt()
        self.notify_of_slips()
        if not (files := self._watched):
            return
        watch = ChangeWatch(files, self._wakes.set, look_seconds=self._look_seconds)
        with watch.running() as has_thread:
            # A file system that does not answer stops the thread. A look from here finds that, and says so.
            seconds = self._own_look_seconds if has_thread else self._look_seconds
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wakes.wait()
                self._wakes.clear()
                always, self._is_requested = self._is_requested, False
                await self._read_again(always=always)
                watch.resume()

    async def _read_again(self, *, always: bool) -> None:
        if self._callers is not None and await self._renew(self._callers, self._take_callers, always=always):
            self.notify_of_slips()
        if self._certificates is not None:
            is_new = await self._renew(self._certificates, self._take_certificates, always=always)
            if is_new or always:
                self._notify_of_doubt()

    def _notify_of_doubt(self) -> None:
        if self._certificates is not None:
            for doubt in self._certificates.value.doubts(self._now()):
                self._observer.notify(CertificateDoubtful(doubt.setting, doubt.line, *doubt.validity))

    def notify_of_slips(self) -> None:
        """Let the observer learn of names in folders of templates that are probably misspelt, each once."""
        for setting, problem in self._profiles.new_slips():
            self._observer.notify(TemplateMisspelt(setting, problem))

    def _build_authenticator(self) -> Authenticator | None:
        if not self._settings.asks_callers:
            return None
        callers = None if self._callers is None else self._callers.value.file.callers
        return Authenticator(callers, by_certificate=self._settings.tls_client_ca_file is not None)

    async def _renew(self, files: WatchedFiles[ValueT], take: Callable[[ValueT], str], *, always: bool) -> bool:
        """Read the files if they have changed, and take what they hold; returns whether that is new."""
        now = asyncio.get_running_loop().time()
        if now < files.rests_until and not always:
            return False
        is_other_fault = False
        try:
            value = await call_detached(partial(files.read_if_changed, always=always), timeout=self._read_seconds)
        except SettingsError as error:
            problems, is_other_fault = error.problems, files.is_other_fault
        except TimeoutError:
            problems = (f"{files.setting}: could not be read in {self._read_seconds:g} s",)
            files.rests_until = now + _HUNG_SECONDS
        except Exception as error:  # noqa: BLE001  whatever is in a file, it is not to end the service
            problems = (f"{files.setting}: could not be read: {error or type(error).__name__}",)
        else:
            if value is not None:
                files.value, files.problems = value, ()
                self._observer.notify(AccessRenewed(files.setting, take(value)))
            return value is not None
        if problems != files.problems or is_other_fault or always:
            files.problems = problems
            for problem in problems:
                self._observer.notify(AccessKept(files.setting, problem))
        return False

    def _take_callers(self, found: _Callers) -> str:
        assert self.authenticator is not None
        self._profiles.renew(found.terms)
        self.authenticator.renew(found.file.callers)
        return found.file.summary

    def _take_certificates(self, files: CertificateFiles) -> str:
        for take in self._followers:
            take(files)
        return "for new connections"


def read_access(settings: ServerSettings, otp: OtpSettings, relays: Collection[str] | None = None) -> None:
    """Read the files once, as a start does. Raises SettingsError with a line for each that can't be used."""
    problems: list[str] = []
    try:
        if (path := settings.callers_file) is not None:
            _read_callers(settings, Profiles(otp, relays), path)
    except SettingsError as error:
        problems += error.problems
    try:
        if (path := settings.tls_cert_file) is not None:
            _read_certificates(settings, path)
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError(*problems)


def doubts_about_certificates(settings: ServerSettings, now: float) -> Sequence[str]:
    """Return lines about certificates that are refused, or will be soon. Raises SettingsError as at a start."""
    path = settings.tls_cert_file
    return [] if path is None else [doubt.line for doubt in _read_certificates(settings, path).doubts(now)]


def _read_certificates(settings: ServerSettings, path: Path) -> CertificateFiles:
    return CertificateFiles.read(path, settings.tls_key_file, settings.tls_client_ca_file)


def _read_callers(settings: ServerSettings, profiles: Profiles, path: Path) -> _Callers:
    """Read the file, and check what it says against the settings beside it."""
    profiles.folders = set()
    file = read_callers(path, METHODS, profiles.rules)
    if problems := tuple(_conflicts(file, settings, path)):
        raise SettingsError(*problems)
    callers = [entry.caller for entry in file.entries]
    if (anonymous := file.callers.anonymous) is not None:
        callers.append(anonymous)
    return _Callers(file, profiles.read(callers))


def _conflicts(file: CallersFile, settings: ServerSettings, path: Path) -> Iterator[str]:
    """Yield a line for each part of the file that does not go with the settings."""
    door = settings.door_of_strangers
    is_asked = settings.allow_anonymous or settings.tls_client_ca_file is not None or file.callers.anonymous is None
    if door is not None and not is_asked and all(entry.is_shut_out for entry in file.entries):
        others = ", since no caller has a token or a certificate" if file.entries else ""
        remedy = "give one a token" if file.entries else "add callers"
        yield (
            f"CALLERS_FILE: {path} lets in [anonymous] alone{others}, and {door.setting} can be reached by strangers; "
            f"{remedy}, or set ALLOW_ANONYMOUS=true"
        )
    for entry in file.entries:
        if entry.certificates and settings.tls_client_ca_file is None:
            yield (
                f"CALLERS_FILE: {path}: line {entry.line}: {table_of(entry.caller.name)} has subjects or sans, and "
                "TLS_CLIENT_CA_FILE is not set"
            )
