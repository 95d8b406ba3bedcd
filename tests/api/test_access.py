"""Files about callers and TLS: read at the start, and again when they change."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trustme

from otpmail.api.access import Access, read_access
from otpmail.api.auth import AUTHORIZATION
from otpmail.api.watched_files import WatchedFiles
from otpmail.errors import SettingsError, Unauthenticated
from otpmail.events import ALL_EVENTS, AccessKept, AccessRenewed, CertificateDoubtful, Event, TemplateMisspelt
from otpmail.otp.terms import Profiles
from otpmail.settings import OtpSettings, ServerSettings

pytestmark = pytest.mark.usefixtures("empty_directory")


class Noted:
    """An observer from which tests take events as they come."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.put_nowait(event)

    async def next(self) -> Event:
        """Wait for the next event."""
        async with asyncio.timeout(30):
            return await self.events.get()


def _table(name: str, token: str) -> str:
    return f'[callers.{name}]\ntokens = ["{sha256(token.encode()).hexdigest()}"]\n'


def _write(file: Path, text: str) -> None:
    """Write a file in one step, so that no reader finds half of it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def _who(access: Access, token: str) -> str:
    AUTHORIZATION.set([f"Bearer {token}"])
    assert access.authenticator is not None
    return access.authenticator.admit("/x/y", None).name


@contextmanager
def _running(access: Access) -> Iterator[None]:
    task = asyncio.create_task(access.run())
    try:
        yield
    finally:
        task.cancel()


def _settings(**values: Any) -> ServerSettings:
    return ServerSettings.from_layers({name: str(value) for name, value in values.items()})


async def test_a_change_is_in_force(tmp_path: Path) -> None:
    """A file that has changed is read again by itself, and the next call is asked for what it has now."""
    file, noted = tmp_path / "callers.toml", Noted()
    _write(file, _table("shop", "one"))
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    assert _who(access, "one") == "shop"
    with _running(access):
        _write(file, _table("shop", "two") + _table("news", "three"))
        assert await noted.next() == AccessRenewed("CALLERS_FILE", "2 callers")
    assert (_who(access, "two"), _who(access, "three")) == ("shop", "news")
    with pytest.raises(Unauthenticated):
        _who(access, "one")


async def test_the_templates_of_a_profile(tmp_path: Path) -> None:
    """Templates are read again when that is requested; a wrong one leaves those before, by its line."""
    file, noted, folder = tmp_path / "callers.toml", Noted(), tmp_path / "mails" / "en"
    folder.mkdir(parents=True)
    for name in ("subject.txt", "body.txt"):
        (folder / name).write_text("$code")
    _write(file, _table("shop", "one") + '[callers.shop.profiles.login]\ntemplates = "mails"\n')
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    with _running(access):
        (folder / "body.txt").write_text("Your code: $code")
        access.request()
        assert await noted.next() == AccessRenewed("CALLERS_FILE", "1 caller")
        (folder / "body.txt").unlink()
        access.request()
        kept = await noted.next()
        assert isinstance(kept, AccessKept)
        assert "[callers.shop.profiles.login] templates en: body.txt and body.html are missing" in kept.problem


async def test_misspelt_templates_of_a_profile(tmp_path: Path) -> None:
    """The start names what is misspelt in the folder of a profile, once, and each change names what is new."""
    file, noted, folder = tmp_path / "callers.toml", Noted(), tmp_path / "mails"
    for path in (folder / "en", folder / "en" / "lgoin"):
        path.mkdir(parents=True)
        for name in ("subject.txt", "body.txt"):
            (path / name).write_text("$code")
    profile = 'templates = "mails"\n'
    _write(
        file, _table("shop", "one") + f"[callers.shop.profiles.login]\n{profile}[callers.shop.profiles.door]\n{profile}"
    )
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    with _running(access):
        told = await noted.next()
        assert isinstance(told, TemplateMisspelt)
        assert told.setting == "CALLERS_FILE"
        assert told.problem.startswith(f"CALLERS_FILE: {folder.resolve()}/en/lgoin: did you mean login? Only calls")
        (folder / "en" / "body.htlm.j2").write_text("{{ code }}")
        access.request()
        again = AccessRenewed("CALLERS_FILE", "1 caller")
        assert await noted.next() == again
        while (told := await noted.next()) == again:  # the look at the files may find the change too
            pass
        words = "body.htlm.j2: is not used; did you mean body.html.j2?"
        assert told == TemplateMisspelt("CALLERS_FILE", f"CALLERS_FILE: {folder.resolve()}/en/{words}")


async def test_changed_templates_of_a_profile_are_in_force(tmp_path: Path) -> None:
    """Templates are read again by themselves when one changes, comes or goes, also in a folder that was faulty."""
    file, noted = tmp_path / "callers.toml", Noted()
    mails, other = tmp_path / "mails" / "en", tmp_path / "other" / "en"
    for folder in (mails, other):
        folder.mkdir(parents=True)
        for name in ("subject.txt", "body.txt"):
            (folder / name).write_text("$code")
    (other / "body.txt").write_text("no code")
    profile = _table("shop", "one") + '[callers.shop.profiles.login]\ntemplates = "{}"\n'
    _write(file, profile.format("mails"))
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    renewed = AccessRenewed("CALLERS_FILE", "1 caller")
    with _running(access):
        _write(mails / "body.txt", "Your code: $code")
        assert await noted.next() == renewed
        _write(mails / "body.html", "<p>$code</p>")
        assert await noted.next() == renewed
        (mails / "subject.txt").unlink()
        assert isinstance(await noted.next(), AccessKept)
        _write(mails / "subject.txt", "$code")
        assert await noted.next() == renewed
        _write(file, profile.format("other"))
        assert isinstance(await noted.next(), AccessKept)
        _write(other / "body.txt", "$code")
        assert await noted.next() == renewed
    assert noted.events.empty()


async def test_another_edit_with_the_same_mistake(tmp_path: Path) -> None:
    """The log names a mistake again that an edit of the file has left, so that nobody takes the edit for good."""
    file, noted = tmp_path / "callers.toml", Noted()
    _write(file, _table("shop", "one"))
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    with _running(access):
        _write(file, "[callers.shop]\n")
        kept = await noted.next()
        assert isinstance(kept, AccessKept)
        _write(file, "[callers.shop]\n# tokens\n")
        assert await noted.next() == kept
        _write(file, _table("shop", "one"))
        assert await noted.next() == AccessRenewed("CALLERS_FILE", "1 caller")
    assert noted.events.empty()


async def test_a_faulty_file_leaves_what_was(tmp_path: Path) -> None:
    """A file with a mistake, or none at all, leaves the callers before; its line comes once, and at each request."""
    file, noted = tmp_path / "callers.toml", Noted()
    _write(file, _table("shop", "one"))
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    with _running(access):
        _write(file, "[callers.shop]\n")
        line = f"CALLERS_FILE: {file}: line 1: [callers.shop] has neither tokens nor subjects nor sans, so nobody can "
        assert await noted.next() == AccessKept("CALLERS_FILE", f"{line}call as it")
        access.request()
        assert await noted.next() == AccessKept("CALLERS_FILE", f"{line}call as it")
        file.unlink()
        line = f"CALLERS_FILE: {file} does not exist; otpmail caller add NAME --file {file} makes it"
        assert await noted.next() == AccessKept("CALLERS_FILE", line)
        assert _who(access, "one") == "shop"
        _write(file, _table("shop", "one"))
        assert await noted.next() == AccessRenewed("CALLERS_FILE", "1 caller")
    assert noted.events.empty()


async def test_files_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer costs one thread, and no more until the file is asked for again."""
    file, noted, asked, answer = tmp_path / "callers.toml", Noted(), SimpleQueue[None](), threading.Event()
    _write(file, _table("shop", "one"))
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01, read_seconds=0.05)

    def hang(*_: object) -> None:
        asked.put(None)
        answer.wait(60)

    monkeypatch.setattr("otpmail.api.access.read_callers", hang)
    problem = AccessKept("CALLERS_FILE", "CALLERS_FILE: could not be read in 0.05 s")
    try:
        with _running(access):
            _write(file, _table("shop", "two"))
            assert await noted.next() == problem
            await asyncio.sleep(0.1)  # in which it would look ten times
            assert asked.qsize() <= 1  # on a machine without time for it, the look itself took too long
            access.request()
            assert await noted.next() == problem
            assert asked.qsize() <= 2
    finally:
        answer.set()
    assert _who(access, "one") == "shop"


async def test_files_that_do_not_change_cost_no_thread_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread looks at the files, and the loop reads them only where they may differ from what was read."""
    file, noted, looks = tmp_path / "callers.toml", Noted(), asyncio.Queue[None]()
    _write(file, _table("shop", "one"))
    os.utime(file, (1_000_000_000, 1_000_000_000))  # long ago, so that no change could look the same
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    read, may_differ = WatchedFiles.read_if_changed, WatchedFiles.may_differ
    reads: list[WatchedFiles[Any]] = []
    loop = asyncio.get_running_loop()

    def look(files: WatchedFiles[Any]) -> bool:
        loop.call_soon_threadsafe(looks.put_nowait, None)
        return may_differ(files)

    def note(files: WatchedFiles[Any], **given: bool) -> object:
        reads.append(files)
        return read(files, **given)

    monkeypatch.setattr(WatchedFiles, "may_differ", look)
    monkeypatch.setattr(WatchedFiles, "read_if_changed", note)
    threads = threading.active_count()
    with _running(access):
        async with asyncio.timeout(30):
            for _ in range(10):
                await looks.get()
        assert not reads
        assert threading.active_count() <= threads + 1
        _write(file, _table("shop", "two"))
        assert await noted.next() == AccessRenewed("CALLERS_FILE", "1 caller")
        assert reads
    assert _who(access, "two") == "shop"


async def test_a_look_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread that looks at the files gets no answer, they are read by another one all the same."""
    file, noted, answer = tmp_path / "callers.toml", Noted(), threading.Event()
    _write(file, _table("shop", "one"))
    profiles = Profiles(OtpSettings())
    access = Access(_settings(CALLERS_FILE=file), noted, profiles, look_seconds=0.01, own_look_seconds=0.02)
    monkeypatch.setattr(WatchedFiles, "may_differ", lambda _: answer.wait(60))
    try:
        with _running(access):
            _write(file, _table("shop", "two"))
            assert await noted.next() == AccessRenewed("CALLERS_FILE", "1 caller")
    finally:
        answer.set()


async def test_without_a_thread_for_the_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread could be started for the looks, a change is in force as soon, once there are threads again."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    file, noted = tmp_path / "callers.toml", Noted()
    _write(file, _table("shop", "one"))
    access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
    monkeypatch.setattr("otpmail.api.watched_files.start_daemon", refuse)
    with _running(access):
        _write(file, _table("shop", "two"))
        assert await noted.next() == AccessRenewed("CALLERS_FILE", "1 caller")


def _issue(folder: Path, first: datetime, last: datetime) -> dict[str, Path]:
    """Write a certificate that is valid between these times, and return its settings."""
    issued = trustme.CA().issue_cert("localhost", not_before=first, not_after=last)
    _write(folder / "both.pem", issued.private_key_and_cert_chain_pem.bytes().decode())
    return {"TLS_CERT_FILE": folder / "both.pem"}


async def test_a_certificate_that_expires(tmp_path: Path) -> None:
    """The observer learns at the start and at each reading that a certificate expires soon or has, until it is new."""
    first, noted = datetime(2030, 1, 1, tzinfo=UTC), Noted()
    last = first + timedelta(days=90)
    settings = _issue(tmp_path, first, last)
    now = [(last - timedelta(days=1)).timestamp()]
    access = Access(_settings(**settings), noted, Profiles(OtpSettings()), look_seconds=0.01, now=lambda: now[0])
    times = first.timestamp(), last.timestamp()
    assert access.certificate_not_after == times[1]
    with _running(access):
        soon = "TLS_CERT_FILE: the certificate expires on 2030-04-01 00:00:00 UTC; renew it before"
        assert await noted.next() == CertificateDoubtful("TLS_CERT_FILE", soon, *times)
        now[0] += 2 * 86_400
        access.request()
        over = "TLS_CERT_FILE: the certificate expired on 2030-04-01 00:00:00 UTC; callers refuse it, so renew it"
        assert await noted.next() == CertificateDoubtful("TLS_CERT_FILE", over, *times)
        _issue(tmp_path, first, last + timedelta(days=90))
        assert await noted.next() == AccessRenewed("TLS_CERT_FILE", "for new connections")
        access.request()
        _issue(tmp_path, last + timedelta(days=9), last + timedelta(days=99))
        assert await noted.next() == AccessRenewed("TLS_CERT_FILE", "for new connections")
        early = "TLS_CERT_FILE: the certificate is not valid before 2030-04-10 00:00:00 UTC; callers refuse it"
        found = await noted.next()
        assert isinstance(found, CertificateDoubtful)
        assert found.problem == early
    assert access.certificate_not_after == (last + timedelta(days=99)).timestamp()
    assert noted.events.empty()


async def test_without_files() -> None:
    """Without files nobody is asked, and nothing is looked at."""
    access = Access(_settings(), Noted(), Profiles(OtpSettings()))
    assert access.authenticator is None
    async with asyncio.timeout(30):
        await access.run()


def test_a_change_that_looks_the_same(tmp_path: Path) -> None:
    """A file that changes twice within the tick of its clock, with one size, is read twice."""
    file = tmp_path / "file"
    file.write_text("a")
    watched = WatchedFiles("FILE", (file,), file.read_text)
    for text in "bcd":
        file.write_text(text)
        found = watched.read_if_changed(always=False) or watched.read_if_changed(always=False)
        assert found == text
        watched.value = found


def test_a_file_that_is_being_written(tmp_path: Path) -> None:
    """A file is not read while it grows: half of it may be a good file, with some of its callers."""
    file = tmp_path / "callers.toml"
    whole = _table("shop", "one") + _table("news", "two")
    file.write_text(_table("old", "three"))
    watched = WatchedFiles("FILE", (file,), file.read_text)
    with file.open("w") as written:
        for part in ("", whole[: len(whole) // 2], whole[len(whole) // 2 :]):
            written.write(part)
            written.flush()
            assert watched.read_if_changed(always=False) is None
    assert watched.read_if_changed(always=False) == whole


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """A reading of a file that has changed meanwhile counts for nothing, good or faulty: it is read again."""
    file = tmp_path / "file"
    file.write_text("old")
    later = ["ab", "abc"]

    def read() -> str:
        found = file.read_text()
        if found != "old" and later:
            file.write_text(later.pop(0))
            if later:
                raise SettingsError("half")
        return found

    watched = WatchedFiles("FILE", (file,), read)
    file.write_text("a")
    assert [watched.read_if_changed(always=True) for _ in range(3)] == [None, None, "abc"]


def test_a_file_that_could_not_be_read(tmp_path: Path) -> None:
    """A file that could not be read is read again after a while, although it looks the same, until it can be."""
    file, faults = tmp_path / "file", ["no free descriptor", "no free descriptor"]
    file.write_text("old")

    def read() -> str:
        found = file.read_text()
        if found != "old" and faults:
            raise SettingsError(faults.pop())
        return found

    watched = WatchedFiles("FILE", (file,), read, retry_seconds=0.02)
    file.write_text("new")
    os.utime(file, (1e9, 1e9))  # it is not fresh, so that nothing but the fault has it read again
    assert watched.read_if_changed(always=False) is None
    for fault in tuple(faults):
        with pytest.raises(SettingsError, match=fault):
            _wait_and_read(watched)
    assert _wait_and_read(watched) == "new"
    watched.value = "new"
    time.sleep(0.02)
    assert not watched.may_differ()


def _wait_and_read(watched: WatchedFiles[str]) -> str | None:
    """Read files once they may differ, in some seconds at most."""
    ends = time.monotonic() + 10
    while not watched.may_differ() and time.monotonic() < ends:
        time.sleep(0.001)
    return watched.read_if_changed(always=False)


@pytest.mark.parametrize(
    "line", ['methods = ["SendCode"]', 'from = ["a@shop.example"]', "return_paths = []", 'priorities = ["urgent"]']
)
async def test_a_permission_that_changes(tmp_path: Path, line: str) -> None:
    """A file in which nothing but a permission has changed is in force, for its callers and for anonymous ones."""
    file, noted = tmp_path / "callers.toml", Noted()
    for text, words in (
        (_table("shop", "one"), "1 caller"),
        (f"{_table('shop', 'one')}[anonymous]\n", "1 caller and anonymous"),
    ):
        _write(file, text)
        access = Access(_settings(CALLERS_FILE=file), noted, Profiles(OtpSettings()), look_seconds=0.01)
        with _running(access):
            _write(file, f"{text}{line}\n")
            assert await noted.next() == AccessRenewed("CALLERS_FILE", words)


@pytest.mark.parametrize(
    ("text", "settings", "line"),
    [
        (
            "[anonymous]\n",
            {"HOST": "0.0.0.0"},
            "lets in [anonymous] alone, and HOST can be reached by strangers; add callers, or set ALLOW_ANONYMOUS=true",
        ),
        (
            "[anonymous]\n",
            {"HTTP_PORT": "0", "HTTP_HOST": "0.0.0.0"},
            "[anonymous] alone, and HTTP_HOST can be reached by strangers; add callers, or set ALLOW_ANONYMOUS=true",
        ),
        (
            "[callers.shop]\ntokens = []\n[callers.news]\nsans = []\n[anonymous]\n",
            {"HOST": "0.0.0.0"},
            "HOST can be reached by strangers; give one a token, or set ALLOW_ANONYMOUS=true",
        ),
        (
            '[callers.shop]\nsubjects = ["CN=shop"]\n',
            {},
            "line 1: [callers.shop] has subjects or sans, and TLS_CLIENT_CA_FILE is not set",
        ),
    ],
)
def test_a_file_that_does_not_go_with_the_settings(
    tmp_path: Path, text: str, settings: dict[str, str], line: str
) -> None:
    """The file of callers is checked against the settings beside it."""
    file = tmp_path / "callers.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_access(_settings(CALLERS_FILE=file, **settings), OtpSettings())
    assert caught.value.problems[0].endswith(line)
    read_access(_settings(CALLERS_FILE=file, ALLOW_ANONYMOUS="true", TLS_CLIENT_CA_FILE="ca.pem"), OtpSettings())


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("[callers.shop]\ntokens = []\n", {}),
        ("[anonymous]\n", {"TLS_CLIENT_CA_FILE": "ca.pem"}),
        (f"{_table('shop', 'one')}[callers.news]\ntokens = []\n[anonymous]\n", {}),
    ],
)
def test_a_file_that_opens_no_door_to_strangers(tmp_path: Path, text: str, settings: dict[str, str]) -> None:
    """A file needs no ALLOW_ANONYMOUS without `[anonymous]`, beside a caller, or where connections are asked."""
    file = tmp_path / "callers.toml"
    file.write_text(text)
    read_access(_settings(CALLERS_FILE=file, HOST="0.0.0.0", **settings), OtpSettings())


async def test_the_last_token_is_taken_back(tmp_path: Path) -> None:
    """A file that takes back the last token and leaves `[anonymous]` is a faulty one on an open host."""
    file, noted = tmp_path / "callers.toml", Noted()
    _write(file, f"{_table('shop', 'one')}[anonymous]\n")
    access = Access(_settings(CALLERS_FILE=file, HOST="0.0.0.0"), noted, Profiles(OtpSettings()), look_seconds=0.01)
    with _running(access):
        _write(file, "[callers.shop]\ntokens = []\n[anonymous]\n")
        kept = await noted.next()
        assert isinstance(kept, AccessKept)
        assert "lets in [anonymous] alone" in kept.problem
        assert _who(access, "one") == "shop"
        _write(file, "[callers.shop]\ntokens = []\n")
        assert isinstance(await noted.next(), AccessRenewed)
    with pytest.raises(Unauthenticated):
        _who(access, "one")


@pytest.mark.parametrize(
    ("text", "settings", "host"),
    [
        (_table("shop", "one"), {"HOST": "127.0.0.1,192.0.2.1"}, "192.0.2.1"),
        (_table("shop", "one"), {"HOST": "::"}, "::"),
        (_table("shop", "one"), {"HOST": "localhost,unix:/run/otpmail.sock"}, ""),
        (_table("shop", "one"), {"HTTP_PORT": "0", "HTTP_HOST": "192.0.2.1"}, "192.0.2.1"),
        (_table("shop", "one"), {"HTTP_PORT": "0", "HTTP_HOST": "::1"}, ""),
        (_table("shop", "one"), {"HTTP_HOST": "192.0.2.1"}, ""),
        ("[anonymous]\n", {"HOST": "::", "ALLOW_ANONYMOUS": "true"}, ""),
    ],
)
def test_tokens_in_plain_text(tmp_path: Path, text: str, settings: dict[str, str], host: str) -> None:
    """The warning names the first host where tokens of other machines would come without TLS."""
    file = tmp_path / "callers.toml"
    file.write_text(text)
    assert Access(_settings(CALLERS_FILE=file, **settings), Noted(), Profiles(OtpSettings())).shows_tokens_on == host
