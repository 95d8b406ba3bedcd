"""`otpmail.testing`: the fixture that other programs test with, and its service in a process of its own."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otpmail import client as errors
from otpmail.client import Client, SyncClient, WaitFor
from otpmail.testing import CaughtMail, Namespace, NoMailError, Service, ServiceFailedError, Setting
from otpmail.testing.service import SERVICE_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_ADA = "ada@example.org"
client = Client()  # as programs have it, at import
sync = SyncClient()


async def test_a_code_comes_without_sleep_or_pattern(otpmail: Namespace) -> None:
    """The code of the latest mail is returned as soon as it was caught, and the same code once."""
    inbox = otpmail.inbox(_ADA)
    sent = await client.send_code(_ADA, "sign-up")
    code = inbox.code()
    assert sent.reference in inbox.mails[0].text
    assert code in inbox.mail().text
    with pytest.raises(NoMailError, match=f"no new mail with a code to {_ADA} within 0 s; caught: '.+' to {_ADA}"):
        inbox.code(wait=0)
    assert await client.check_code(_ADA, code, "sign-up")


def test_an_international_address(otpmail: Namespace) -> None:
    """An inbox and `fail` find the domain of an address in both of its forms."""
    address, encoded = "ada@bücher.example", "ada@xn--bcher-kva.example"
    sync.send_code(address)
    assert otpmail.inbox(address).code() == otpmail.inbox(encoded).mails[0].code
    with otpmail.fail(550, address), pytest.raises(errors.Refused):
        sync.send_mail(encoded, "Hello", "text")


async def test_the_wait_for_a_code_leaves_the_loop_alone(otpmail: Namespace) -> None:
    """`next_code` waits while the same loop sends the code."""
    waiting = asyncio.create_task(otpmail.inbox(_ADA).next_code())
    await client.send_code(_ADA, wait_for=WaitFor.QUEUE)
    assert await client.check_code(_ADA, await waiting)


def test_a_mail_and_its_parts(otpmail: Namespace) -> None:
    """A mail has its envelope, subject, text and HTML, and a code only if it is the mail of one."""
    sync.send_mail([_ADA, "Bob <bob@example.org>"], "Hällo", "text", "<p>HTML</p>")
    mail = otpmail.inbox("BOB@example.org").mail()
    assert (mail.subject, mail.text.strip(), mail.html.strip(), mail.code) == ("Hällo", "text", "<p>HTML</p>", "")
    assert (mail.sender, set(mail.recipients)) == ("codes@otpmail.example", {_ADA, "bob@example.org"})
    assert otpmail.mails == otpmail.inbox(_ADA).mails == [mail]
    with pytest.raises(NoMailError, match=r"no mail with a code .* caught: 'Hällo' to"):
        otpmail.inbox(_ADA).code(wait=0)
    with pytest.raises(NoMailError, match=r"no mail to eve@example\.org"):
        otpmail.inbox("eve@example.org").mail(wait=0)


def test_why_no_mail_came(otpmail: Namespace) -> None:
    """Where no mail came, the error has the relay's reply to a refused one, or that the program had no token."""
    with otpmail.fail("550 5.1.1 nobody", _ADA), pytest.raises(errors.Refused):
        sync.send_code(_ADA)
    with pytest.raises(NoMailError, match=f"caught: nothing; the relay refused {_ADA}: 550 5.1.1 nobody$"):
        otpmail.inbox(_ADA).code(wait=0)
    sync.send_mail(_ADA, "Hello")
    with pytest.raises(NoMailError, match=f"caught: 'Hello' to {_ADA}$"):
        otpmail.inbox(_ADA).code(wait=0)
    address = f"a{otpmail.token[:8]}@example.org"  # a mail without a token is all tests'
    with SyncClient(token="") as without:
        without.send_mail(address, "Hello")
    with pytest.raises(NoMailError, match=f"; one to {address} came from a program without a token, which needs "):
        otpmail.inbox(address).mail(wait=0)


@pytest.mark.parametrize("name", ["code", "mail", "next_code", "next_mail"])
async def test_the_lines_that_a_failure_shows(otpmail: Namespace, name: str) -> None:
    """Where no mail came, pytest shows the line of the test, and none of otpmail or of asyncio."""
    with pytest.raises(NoMailError) as caught:
        await getattr(otpmail.inbox(_ADA), name)(wait=0)  # two of them raise before there is anything to await
    shown = [entry.path for entry in caught.traceback.filter(caught)]
    assert shown == [Path(__file__)]


def test_mails_are_all_that_were_caught(
    otpmail: Namespace, otpmail_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mails` has what was caught before, also where the mail is still on its way between both processes."""
    arrive, write, asked = otpmail_service.mailroom.add, otpmail_service._write, threading.Event()

    def arrive_late(namespace: str, mail: CaughtMail) -> None:
        """Take a mail once the test asks for its mails."""
        asked.wait(10)
        arrive(namespace, mail)

    def write_first(message: Mapping[str, object]) -> None:
        """Write a question, and let the mails on their way arrive."""
        write(message)
        asked.set()

    monkeypatch.setattr(otpmail_service.mailroom, "add", arrive_late)
    monkeypatch.setattr(otpmail_service, "_write", write_first)
    sync.send_code(_ADA)
    assert len(otpmail.mails) == 1
    asked.clear()
    sync.send_mail(_ADA, "Hi", "text")
    assert len(otpmail.inbox(_ADA).mails) == 2


def test_a_namespace_has_its_own(otpmail: Namespace, otpmail_service: Service) -> None:
    """Codes, limits and mails of one namespace do not exist in another, for the same address."""
    other = otpmail_service.namespace()
    stranger = SyncClient(other.address, token=other.token)
    sync.send_code(_ADA)
    with pytest.raises(errors.TooSoon):
        sync.send_code(_ADA)
    assert other.mails == []
    code = otpmail.inbox(_ADA).code()
    with pytest.raises(errors.NoLiveCode):
        stranger.check_code(_ADA, code)
    stranger.send_code(_ADA)
    assert len(otpmail.mails) == len(other.mails) == 1
    assert sync.check_code(_ADA, code)
    stranger.close()


def test_a_namespace_ends_with_its_block(otpmail_service: Service) -> None:
    """`with service.namespace()` gives the namespace, and closes it after the block."""
    with otpmail_service.namespace() as own, SyncClient(own.address, token=own.token) as caller:
        caller.send_code(_ADA)
        assert caller.check_code(_ADA, own.inbox(_ADA).code())
    assert own.mails == []


def test_namespaces_have_no_end(otpmail_service: Service) -> None:
    """Each of many namespaces has a token of its own, which works until the namespace is closed."""
    namespaces = [otpmail_service.namespace() for _ in range(250)]
    assert len({namespace.token for namespace in namespaces}) == 250
    for one in (*namespaces[::50], namespaces[-1]):
        with SyncClient(one.address, token=one.token) as caller:
            caller.send_code(_ADA)
        assert one.inbox(_ADA).code()
    for one in namespaces[1:]:
        one.close()
    more = [otpmail_service.namespace() for _ in range(250)]
    with SyncClient(namespaces[0].address, token=namespaces[0].token) as caller:
        assert caller.check_code(_ADA, namespaces[0].inbox(_ADA).mails[0].code)
    with SyncClient(namespaces[1].address, token=namespaces[1].token) as closed, pytest.raises(errors.Unauthenticated):
        closed.send_code(_ADA)
    for one in (namespaces[0], *more):
        one.close()


def test_threads_may_ask_at_once(otpmail_service: Service) -> None:
    """Each thread has the answer to its own question, wherever the threads take turns."""

    def taking_turns(frame: FrameType, _event: str, _: object) -> Any:
        """Let another thread run before each line of `ask`."""
        if frame.f_code is not Service.ask.__code__:
            return None
        time.sleep(0.001)
        return taking_turns

    def ask() -> Namespace:
        """Ask for a namespace."""
        sys.settrace(taking_turns)
        try:
            return otpmail_service.namespace()
        finally:
            sys.settrace(None)

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask) for _ in range(8)]
        tokens = {each.result().token for each in asked}
    assert len(tokens) == 8


def test_time_passes(otpmail: Namespace) -> None:
    """`clock.advance` ends waits and lives of codes, and brings the next attempt of a deferred mail."""
    sync.send_code(_ADA)
    with pytest.raises(errors.TooSoon) as caught:
        sync.send_code(_ADA)
    assert caught.value.retry_after
    otpmail.clock.advance(caught.value.retry_after)
    sync.send_code(_ADA)
    code = otpmail.inbox(_ADA).code()
    otpmail.clock.advance(minutes=10)
    with pytest.raises(errors.NoLiveCode):
        sync.check_code(_ADA, code)
    assert "code" in otpmail.inbox(_ADA).mail().subject
    with otpmail.fail(451, times=1):
        mail = sync.send_mail(_ADA, "Hi", "text", wait_for=WaitFor.QUEUE)
        deferred = next(state for state in sync.watch_mail(mail.id) if state.next_attempt_time)
        assert deferred.recipients[0].code == 451
    otpmail.clock.advance(hours=1)
    assert otpmail.inbox(_ADA).mail().subject == "Hi"


def test_failures_on_demand(otpmail: Namespace) -> None:
    """`fail` lets the relay refuse all, or some addresses, as often as is said, until its block ends."""
    with otpmail.fail(550), pytest.raises(errors.Refused) as refused:
        sync.send_code(_ADA)
    assert (refused.value.code, refused.value.enhanced_code) == (550, "5.1.1")
    assert sync.send_code(_ADA).mail.state is errors.State.RELAYED
    with otpmail.fail("554 5.7.1 spam", "eve@example.org"):
        sync.send_code("bob@example.org")
        with pytest.raises(errors.Refused, match="spam"):
            sync.send_code("eve@example.org")
    with pytest.raises(errors.Refused, match="full for good"):
        sync.send_code("552@fail.example")


@pytest.mark.parametrize("address", [_ADA, "Ada.B@Example.ORG", "ada@b\u00fccher.example"])
def test_failures_that_suppress(otpmail: Namespace, otpmail_service: Service, address: str) -> None:
    """A failure ends with its block, unless it is to suppress the address; each mail goes by its own namespace."""
    other = otpmail_service.namespace()
    with SyncClient(other.address, token=other.token) as stranger:
        with otpmail.fail(550, suppress=True), other.fail(550):
            for sender in (sync, stranger):
                with pytest.raises(errors.Refused):
                    sender.send_mail(address, "Hi", "text")
        assert stranger.send_mail(address, "Hi", "text").state is errors.State.RELAYED
        with pytest.raises(errors.Suppressed):
            sync.send_mail(address, "Hi", "text")
    sync.release_address(address, suppression=True)
    assert sync.send_mail(address, "Hi", "text").state is errors.State.RELAYED
    assert len(otpmail.mails) == 1


def test_failures_by_the_address_that_suppress(otpmail: Namespace) -> None:
    """An address at `fail.example` is suppressed if it asks for that, and `fail` may spare it all the same."""
    asks = "550+suppressed@fail.example"
    for _ in range(2):
        with otpmail.fail(551, asks), pytest.raises(errors.Refused) as refused:
            sync.send_mail(asks, "Hi", "text")
        assert refused.value.code == 551
    for raised in (errors.Refused, errors.Suppressed):
        with pytest.raises(raised):
            sync.send_mail(asks, "Hi", "text")
        with pytest.raises(errors.Refused):
            sync.send_mail("550@fail.example", "Hi", "text")


def test_a_mail_that_some_recipients_refused(otpmail: Namespace) -> None:
    """A mail that was caught has the recipients that were refused, each with the reply."""
    with otpmail.fail(550, "bob@example.org"), pytest.raises(errors.PartlySent):
        sync.send_mail([_ADA, "bob@example.org"], "Hi", "text")
    (mail,) = otpmail.mails
    assert mail.recipients == (_ADA,)
    assert mail.refused == (("bob@example.org", "550 5.1.1 there is no such mailbox"),)
    assert otpmail.inbox("bob@example.org").mails == []


def test_failures_of_one_namespace(otpmail: Namespace, otpmail_service: Service) -> None:
    """`fail` of one test does not hit another's mail to the same address, sent at the same time."""
    other = otpmail_service.namespace()
    with SyncClient(other.address, token=other.token) as stranger, ThreadPoolExecutor(8) as threads:
        with otpmail.fail("550 5.7.1 no"), other.fail(554, "eve@example.org"):
            refused = [threads.submit(sync.send_mail, _ADA, "Hi", "text", raise_outcome=False) for _ in range(20)]
            taken = [threads.submit(stranger.send_mail, _ADA, "Hi", "text", raise_outcome=False) for _ in range(20)]
            states = {each.result().state for each in refused}, {each.result().state for each in taken}
            assert states == ({errors.State.FAILED}, {errors.State.RELAYED})
            with pytest.raises(errors.Refused) as caught:
                stranger.send_mail("eve@example.org", "Hi", "text")
        assert caught.value.code == 554
    assert len(other.mails) == 20
    assert otpmail.mails == []


def test_failures_within_failures(otpmail: Namespace) -> None:
    """The inner of two `fail` comes first, and the outer one holds where it does not fit, and behind it."""

    def reply() -> str:
        """Send a mail that is refused, and return the reply."""
        with pytest.raises(errors.Refused) as caught:
            sync.send_mail("eve@example.org", "Hi", "text")
        return f"{caught.value.code} {caught.value.reply}"

    with otpmail.fail("550 outer"):
        with otpmail.fail("554 inner", "EVE@example.org", times=1):
            assert [reply(), reply()] == ["554 inner", "550 outer"]
        with otpmail.fail(551, "bob@example.org"):
            assert reply() == "550 outer"
        assert reply() == "550 outer"
    assert sync.send_mail("eve@example.org", "Hi", "text").state is errors.State.RELAYED


def test_a_recipient_that_is_deferred(otpmail: Namespace) -> None:
    """A call for a deferred recipient returns at once if it waits for the queue, and ends with its own deadline."""
    with otpmail.fail(451):
        for address in (_ADA, "452+ada@fail.example"):
            assert sync.send_code(address, wait_for=WaitFor.QUEUE).mail.state is errors.State.QUEUED
        with pytest.raises(errors.TimedOut) as late:
            sync.send_code("bob@example.org", timeout=1)
    assert sync.get_mail(late.value.mail_id).state is errors.State.CANCELLED


@pytest.mark.parametrize("reply", [250, 600, 55, "no", "550\r\nQUIT", "550-5.1.1 more", ""])
def test_a_failure_that_is_none(otpmail: Namespace, reply: int | str) -> None:
    """`fail` with a reply that refuses nothing is an error of the test, and so are other senseless values."""
    with pytest.raises(ValueError, match="no reply of a relay that refuses"), otpmail.fail(reply):
        pass
    with pytest.raises(ValueError, match="times"), otpmail.fail(550, times=0):
        pass
    for seconds in (-1.0, float("nan"), -float("inf")):
        with pytest.raises(ValueError, match="forward only"):
            otpmail.clock.advance(seconds)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda otpmail: otpmail.inbox("ada"), ValueError, "address: is not a mailbox address .+: 'ada'"),
        (lambda otpmail: otpmail.inbox(5), TypeError, "address: must be text, not int"),
        (lambda otpmail: otpmail.inbox(""), ValueError, "address: is empty: ''"),
        (lambda otpmail: otpmail.inbox(_ADA).code("1"), TypeError, "wait: must be a number, not str"),
        (lambda otpmail: otpmail.inbox(_ADA).mail(None), TypeError, "wait: must be a number, not NoneType"),
        (lambda otpmail: otpmail.fail(550, 5).__enter__(), TypeError, "address: must be text, not int"),
        (lambda otpmail: otpmail.fail(550, [_ADA]).__enter__(), TypeError, "address: must be text, not list"),
        (lambda otpmail: otpmail.fail(550, "ada").__enter__(), ValueError, "address: is not a mailbox"),
        (lambda otpmail: otpmail.fail(550, times="1").__enter__(), ValueError, "times must be a whole number"),
        (lambda otpmail: otpmail.fail(550, times=1.5).__enter__(), ValueError, "times must be a whole number"),
        (lambda otpmail: otpmail.clock.advance("1"), TypeError, "seconds: must be a number, not str"),
        (lambda otpmail: otpmail.clock.advance(minutes=None), TypeError, "minutes: must be a number, not NoneType"),
    ],
)
def test_an_argument_that_is_wrong(
    otpmail: Namespace, act: Callable[[Any], Any], error: type[Exception], words: str
) -> None:
    """It is named at once: no test waits for a mail that can't come, and the service lives on for the other tests."""
    with pytest.raises(error, match=words):
        act(otpmail)
    assert otpmail.mails == []


def test_the_end_of_time() -> None:
    """Time may pass as far as the service can count; more, at once or in all, is an error of the test."""
    with Service() as service:
        namespace = service.namespace()
        for seconds in (1e12, 1e300, float("inf"), 10_000 * 86_400 + 1.0):
            with pytest.raises(ValueError, match="at most 10000 days may pass in all"):
                namespace.clock.advance(seconds)
        namespace.clock.advance(days=10_000)
        with pytest.raises(ValueError, match=r"at most 10000 days may pass in all: 1 s .* 8\.64e\+08 s have passed"):
            namespace.clock.advance(1)
        with SyncClient(namespace.address, token=namespace.token) as own:
            own.send_code(_ADA)
            assert own.check_code(_ADA, namespace.inbox(_ADA).code())


def test_a_call_without_a_token(otpmail: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that sends no token is served, and its mails are in no test's namespace: neither do they fail."""
    monkeypatch.delenv("OTPMAIL_TOKEN")
    with otpmail.fail(550):
        sync.send_mail(_ADA, "Hi", "text")
    assert otpmail.mails == []


def test_settings_of_the_service() -> None:
    """Settings may be given; a wrong one ends the start with its line, and a service that has ended says so."""
    with Service({"OTP_DIGITS": "8"}) as service:
        namespace = service.namespace()
        with SyncClient(namespace.address, token=namespace.token) as own:
            assert own.send_code(_ADA).code_length == 8
    with pytest.raises(ServiceFailedError, match="not running"):
        service.namespace()
    with pytest.raises(ServiceFailedError, match="OTP_DIGITS: "), Service({"OTP_DIGITS": "many"}):
        pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"OTP_DIGITZ": "8"}, ["OTP_DIGITZ: there is no such setting; did you mean OTP_DIGITS?"]),
        ({"otp_digitz": "8"}, ["OTP_DIGITZ: there is no such setting; did you mean OTP_DIGITS?"]),
        ({"OTP_LIFESPAN": "30"}, ["OTP_LIFESPAN: there is no such setting; did you mean OTP_LIFESPAN_SECONDS?"]),
        ({"CODE_LENGTH": "8"}, ["CODE_LENGTH: there is no such setting; did you mean OTP_DIGITS?"]),
        ({"OTPMAIL_SERVER": "a.example:1"}, ["OTPMAIL_SERVER: there is no such setting"]),
        (
            {"EMAIL_HOST": "mail.example", "EMAIL_RELAYS": "smtp://mail.example", "CALLERS_FILE": "callers.toml"},
            [
                f"{name}: is fixed in the service of the tests; remove it"
                for name in ("EMAIL_HOST", "EMAIL_RELAYS", "CALLERS_FILE")
            ],
        ),
        (
            {"PROCESSES": "2", "process_hang_seconds": "9", "DRAIN_SECONDS": "5", "LAMEDUCK_SECONDS": "1"},
            [
                f"{name}: has no effect, since the service of the tests {does}; remove it"
                for name, does in (
                    ("PROCESSES", "is one process"),
                    ("PROCESS_HANG_SECONDS", "is one process"),
                    ("DRAIN_SECONDS", "ends at once with the tests"),
                    ("LAMEDUCK_SECONDS", "ends at once with the tests"),
                )
            ],
        ),
    ],
)
def test_a_setting_without_effect(settings: dict[str, str], words: list[str]) -> None:
    """A name that is no setting is an error with the one that was meant. So is one that is fixed or useless there."""
    with pytest.raises(ServiceFailedError) as failed, Service(settings):
        pass
    assert str(failed.value).splitlines()[1:] == words


def test_settings_of_several_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, truth values and paths may be given as they are: a path is that of the tests."""
    mine = tmp_path / "mine" / "en"
    mine.mkdir(parents=True)
    (mine / "subject.txt.j2").write_text("mine", "utf-8")
    (mine / "body.txt.j2").write_text("{{ code }}", "utf-8")
    monkeypatch.chdir(tmp_path)
    given: dict[str, Setting] = {"OTP_DIGITS": 9, "OTP_RETURN_CODE": True, "OTP_TEMPLATES_DIR": Path("mine")}
    with (
        Service(given) as service,
        service.namespace() as namespace,
        SyncClient(namespace.address, token=namespace.token) as own,
    ):
        sent = own.send_code(_ADA)
        assert (sent.code_length, sent.otp_code) == (9, namespace.inbox(_ADA).code())
        assert namespace.inbox(_ADA).mails[-1].subject == "mine"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["OTP_DIGITS=8"], 'settings: must be a dict of names and values, such as {"OTP_DIGITS": "8"}, not list'),
        ({8: "OTP_DIGITS"}, "settings: a name must be text, not int: 8"),
        ({"OTP_KEYS": ["x"]}, "settings: OTP_KEYS must be text, a number, true or false, or a path, not list"),
    ],
)
def test_settings_of_a_wrong_type(settings: Any, words: str) -> None:
    """The setting is named before any process starts."""
    with pytest.raises(TypeError) as failed:
        Service(settings)
    assert str(failed.value) == words


def test_a_setting_in_small_letters() -> None:
    """The names of settings may be in small letters, as in `.env`."""
    with (
        Service({"otp_digits": "9"}) as service,
        service.namespace() as namespace,
        SyncClient(namespace.address, token=namespace.token) as own,
    ):
        assert own.send_code(_ADA).code_length == 9


def test_a_service_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the client is installed, the error says which extra is missing."""
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError(\"No module named 'pydantic'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        pytest.raises(ServiceFailedError, match=r"No module named 'pydantic'\npip install 'PATH_OF_CLONE\[testing\]' "),
        Service(),
    ):
        pass


def test_a_service_that_is_killed() -> None:
    """A test that waits for a mail, or asks for something, fails at once where the process has ended."""
    with Service() as service:
        namespace = service.namespace()
        assert service._process is not None
        service._process.kill()
        with pytest.raises(NoMailError, match="has ended"):
            namespace.inbox(_ADA).code(wait=60)
        with pytest.raises(ServiceFailedError, match="has ended"):
            service.namespace()


def test_a_start_is_quick() -> None:
    """A service of the tests is there after 0.6 s of work, or 2.5 times that of its imports on a slow machine."""

    def work() -> float:
        """Start a service, and return the seconds of processor time that it took."""
        with Service() as service:
            assert service._process is not None
            used = Path(f"/proc/{service._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
            return sum(map(int, used[11:13])) / os.sysconf("SC_CLK_TCK")

    def imports() -> float:
        """Import the packages that a start can't do without, and return the seconds of processor time."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import grpc.aio, jinja2, pydantic_settings"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    by_turns = [(work(), imports()) for _ in range(3)]  # others may have the processor
    assert any(started <= max(0.6, 2.5 * imported) for started, imported in by_turns), by_turns


def test_a_start_imports_what_it_needs(tmp_path: Path) -> None:
    """The process imports neither what HTTP_PORT and other stores need, nor what unusual addresses do."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "otpmail.testing.child"],
        cwd=tmp_path,
        env=os.environ | SERVICE_ENVIRONMENT,
        input='{"settings": {}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert {"otpmail.app", "jinja2"} <= imported
    needless = {"click", "cryptography", "email_validator", "httptools", "prometheus_client", "redis"}
    assert not imported & (needless | {"sqlite3", "uvloop", "otpmail.web.server"})
    assert len(imported) < 850


def test_the_plugin_costs_nothing() -> None:
    """The plugin, which each run of pytest loads, imports neither gRPC nor the service."""
    look = "import sys, otpmail.pytest_plugin; print([m for m in sys.modules if m in ('grpc', 'otpmail.testing')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


_CROSSING = """
import pytest
from otpmail.client import Client, NoLiveCode, Refused

client = Client()

@pytest.mark.parametrize("number", range({count}))
async def test_a_sign_up(otpmail, number):
    sent = await client.send_code("ada@example.org")
    inbox = otpmail.inbox("ada@example.org")
    code = inbox.code()
    assert sent.reference in inbox.mail().text
    assert len(otpmail.mails) == 1
    if number % 5 == 0:
        with otpmail.fail(550), pytest.raises(Refused):
            await client.send_code("bob@example.org")
    if number % 7 == 0:
        otpmail.clock.advance(minutes=11)
        with pytest.raises(NoLiveCode):
            await client.check_code("ada@example.org", code)
    else:
        assert await client.check_code("ada@example.org", code)
"""


@pytest.mark.timeout(900)
def test_no_code_crosses(tmp_path: Path, *, full: bool) -> None:
    """Tests in four processes that use the same address each get their own code: 80, and with --full a thousand.

    The settings that the page shows cause no warning.
    """
    count = 1000 if full else 80
    (tmp_path / "test_sign_up.py").write_text(_CROSSING.format(count=count))
    shown = (Path(__file__).parents[2] / "docs/testing-your-service.md").read_text("utf-8")
    settings = shown.partition("```\n[pytest]\n")[2].partition("```")[0]
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}filterwarnings = error\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "OTPMAIL_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "--no-header"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{count} passed" in done.stdout
