"""`otpmail merge` as a process, against a service as a process."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import signal
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calls import parsed, text_of
from commands import Ran, ended, otpmail, start
from http1 import url_of
from relay import Faults

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Relay
    from service import Service

COMMAND = ("merge", "people.csv", "--template", "spring")
KEPT = (
    "people.journal lists the mails that were relayed; the same command does not send them again. To send them "
    "again, delete it and change the template a little. The service remembers each mail for a day, with a "
    "durable STORE_URL also after a restart."
)
_PROGRESS = re.compile(r"\d+ of \d+ mails?, \d+ a second")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a template, for the commands to run in."""
    (tmp_path / "spring").mkdir()
    (tmp_path / "spring" / "subject.txt").write_text("Hello $name\n")
    (tmp_path / "spring" / "body.txt").write_text("Dear $name\n")
    (tmp_path / "spring" / "body.html").write_text("<p>Dear $name</p>\n")
    return tmp_path


def _people(here: Path, count: int, *more: str) -> list[str]:
    people = [f"p{number}@example.org" for number in range(count)]
    rows = [f"{person},P & {person[:-12]}" for person in people]
    (here / "people.csv").write_text("\n".join(["email,name", *rows, *more, ""]))
    return people


def _arrived(relay: Relay) -> Counter[str]:
    return Counter(mail.recipients[0] for mail in relay.mails)


def _listed(errors: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(errors.read_text().splitlines()))


def _files(here: Path) -> set[str]:
    return {path.name for path in here.iterdir() if path.is_file()}


def _errors(ran: Ran) -> list[str]:
    """Return the lines of standard error, but for those that show every five seconds how far the merge is."""
    return [line for line in ran.err.splitlines() if not _PROGRESS.match(line)]


def _in_journal(here: Path) -> int:
    path = here / "people.journal"
    return path.read_text().count(" RELAYED\n") if path.exists() else 0


async def _hold(relay: Relay, here: Path) -> None:
    """Let ten mails of the merge through, hold the next, and wait until the journal has the ten."""
    await relay.wait_for_mails(10)
    relay.faults = replace(relay.faults, silent_at="MAIL")
    async with asyncio.timeout(30):
        while _in_journal(here) < 10:  # noqa: ASYNC110 -- it is another process that writes
            await asyncio.sleep(0.01)


def _let_go(relay: Relay) -> None:
    relay.faults = replace(relay.faults, silent_at=None)
    relay.cut_connections()


async def _restart(service: Service) -> None:
    await service.stop()
    await service.start()
    await service.wait_for_log("relay-up")


async def _send(service: Service, here: Path, *more: str) -> Ran:
    return await otpmail(*COMMAND, *more, server=service.address, here=here)


async def test_a_merge(service: Service, relay: Relay, here: Path) -> None:
    """Each row is a mail, filled in and escaped, and there is no errors file. A second run sends nothing."""
    people = _people(here, 1000)
    (here / "people.errors.csv").write_text("row,email,code,message\n")
    ran = await _send(service, here, "--from", "Shop <codes@example.org>", "--reply-to", "help@example.org")
    assert (ran.code, _errors(ran)) == (0, [])
    summary, journal = ran.out.splitlines()
    assert summary.startswith("1000 of 1000 relayed, 0 failed, in ")
    assert journal == KEPT
    assert not (here / "people.errors.csv").exists()
    assert _arrived(relay) == Counter(people)
    (mail,) = (mail for mail in relay.mails if mail.recipients == ("p7@example.org",))
    message = parsed(mail.content)
    assert str(message["From"]) == "Shop <codes@example.org>"
    assert (message["Subject"], message["Reply-To"]) == ("Hello P & p7", "help@example.org")
    assert text_of(mail.content) == "Dear P & p7\n"
    html = message.get_body(("html",))
    assert html is not None
    assert html.get_content().rstrip() == "<p>Dear P &amp; p7</p>"
    again = await _send(service, here, "--from", "Shop <codes@example.org>", "--reply-to", "help@example.org")
    assert (again.code, again.err) == (
        0,
        "1000 of 1000 were relayed before, as people.journal says; they are not sent again\n",
    )
    summary, _ = again.out.splitlines()
    assert summary.startswith("1000 of 1000 relayed, 0 failed; sent now: 0, known already: 1000, in ")
    assert not summary.endswith("a second")
    assert len(relay.mails) == 1000


@pytest.mark.relay(refuse_recipients={"p3@example.org": "550 5.1.1 no such user"})
async def test_failures_are_listed_and_corrected(service: Service, relay: Relay, here: Path) -> None:
    """A failure is listed and gives exit code 1; after a correction of its row, only that mail is sent."""
    people = _people(here, 10)
    ran = await _send(service, here)
    assert ran.code == 1
    assert ran.out.startswith("9 of 10 relayed, 1 failed (listed in people.errors.csv), in ")
    (failed,) = _listed(here / "people.errors.csv")
    assert failed == {"row": "5", "email": "p3@example.org", "code": "550", "message": "5.1.1 no such user"}
    content = (here / "people.csv").read_text()
    (here / "people.csv").write_text(content.replace("p3@example.org", "ada@example.org"))
    ran = await _send(service, here, "--json", "--errors", "other.csv")
    assert ran.code == 0
    assert json.loads(ran.out) == {
        "mails": 10,
        "relayed": 10,
        "relayed_before": 9,
        "failed": 0,
        "failed_before": 0,
        "unanswered": 0,
        "in_doubt": 0,
        "errors": "",
        "journal": "people.journal",
        "stopped": "",
    }
    assert _arrived(relay) == Counter({*people, "ada@example.org"} - {"p3@example.org"})


async def test_the_service_refuses(service: Service, here: Path) -> None:
    """A mail that only the service can refuse is a failure with the service's code."""
    _people(here, 2)
    ran = await _send(service, here, "--from", "eve@example.org", "--errors", "refused.csv")
    assert ran.code == 1
    codes = [(failed["row"], failed["code"]) for failed in _listed(here / "refused.csv")]
    assert sorted(codes) == [("2", "PERMISSION_DENIED"), ("3", "PERMISSION_DENIED")]


@pytest.mark.relay(chunking=False)
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_interrupted_and_sent_again(service: Service, relay: Relay, here: Path) -> None:
    """After Ctrl-C, mails that had not left are not sent; a second run sends each of them once."""
    people = _people(here, 300)
    process = await start(*COMMAND, server=service.address, here=here)
    await _hold(relay, here)
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert (ran.code, _errors(ran)) == (1, ["interrupted"])
    summary, how, journal = ran.out.splitlines()
    relayed = int(summary.split()[0])
    assert 0 < relayed < 300
    assert how.startswith(f"{300 - relayed} have no result: ")
    assert how.endswith("Within a day none is sent twice, unless the service is restarted meanwhile.")
    assert journal == KEPT
    _let_go(relay)
    single = await otpmail("mail", "send", "--to", "last@example.org", "--text", "Hi", server=service.address)
    assert single.code == 0  # the mails before it, which the relay had, have settled
    assert relayed <= len(relay.mails) - 1 < 300
    again = await _send(service, here)
    assert (again.code, again.out.split(",")[0]) == (0, "300 of 300 relayed")
    assert _arrived(relay) == Counter([*people, "last@example.org"])


@pytest.mark.relay(refuse_recipients={"p3@example.org": "550 5.1.1 no such user"})
async def test_sent_again_after_a_restart_of_the_service(service: Service, relay: Relay, here: Path) -> None:
    """After a restart, the journal alone keeps relayed mails from a second sending; changed and new rows are sent."""
    people = _people(here, 10)
    await _send(service, here)
    await _restart(service)
    content = (here / "people.csv").read_text().replace("P & p5\n", "P and p5\n").replace("p3@", "p33@")
    (here / "people.csv").write_text(f"{content}ada@example.org,Ada\n")
    ran = await _send(service, here)
    assert (ran.code, _errors(ran)) == (
        0,
        ["8 of 11 were relayed before, as people.journal says; they are not sent again"],
    )
    assert ran.out.startswith("11 of 11 relayed, 0 failed; sent now: 3, known already: 8, in ")
    once = Counter({*people, "p33@example.org", "ada@example.org"} - {"p3@example.org"})
    assert _arrived(relay) == once + Counter(["p5@example.org"])
    (here / "people.journal").unlink()
    await _restart(service)
    ran = await _send(service, here)
    assert (ran.code, _errors(ran)) == (0, [])
    assert _arrived(relay) == once + once + Counter(["p5@example.org"])


async def test_all_were_relayed_before(service: Service, here: Path) -> None:
    """If all mails were relayed before, the command succeeds without calling a service."""
    _people(here, 3)
    await _send(service, here)
    again = await otpmail(*COMMAND, server="127.0.0.1:1", here=here)
    assert (again.code, again.out.split(", in ")[0]) == (
        0,
        "3 of 3 relayed, 0 failed; sent now: 0, known already: 3",
    )


@pytest.mark.relay(refuse_recipients={"p3@example.org": "550 5.1.1 no such user"})
async def test_the_service_knows_results_without_a_journal(service: Service, relay: Relay, here: Path) -> None:
    """Without its journal, a second run gets the results of the first from the service, and says so."""
    _people(here, 10)
    await _send(service, here)
    (here / "people.journal").unlink()
    again = await _send(service, here)
    assert again.out.startswith(
        "9 of 10 relayed, 1 failed (listed in people.errors.csv); sent now: 0, known already: 10, in "
    )
    assert len(relay.mails) == 9


@pytest.mark.relay(chunking=False)
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_killed_and_sent_again_after_a_restart(service: Service, relay: Relay, here: Path) -> None:
    """The journal is written as results come: a killed run loses only the results of mails in flight."""
    people = _people(here, 300)
    process = await start(*COMMAND, server=service.address, here=here)
    await _hold(relay, here)
    process.kill()
    await ended(process)
    known = _in_journal(here)
    _let_go(relay)
    await service.stop()
    first = len(relay.mails)
    await service.start()
    await service.wait_for_log("relay-up")
    again = await _send(service, here)
    assert again.out.startswith(f"300 of 300 relayed, 0 failed; sent now: {300 - known}, known already: {known}, in ")
    assert set(_arrived(relay)) == set(people)
    assert len(relay.mails) == first + 300 - known
    assert max(_arrived(relay).values()) <= 2


@pytest.mark.relay(chunking=False, silent_at="DATA", times=1)
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1, STREAM_UNSETTLED=20, LOG_LEVEL="debug")
async def test_a_service_that_stops(service: Service, relay: Relay, here: Path) -> None:
    """A service that stops gives exit code 3 and its message; the results it still gives are counted."""
    _people(here, 50)
    process = await start(*COMMAND, server=service.address, here=here)
    await relay.wait_for_command("DATA")
    await service.wait_for_log("mail-accepted", count=20)
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping")
    relay.faults = Faults()
    relay.cut_connections()
    ran = await ended(process)
    assert ran.code == 3
    assert _errors(ran) == ["UNAVAILABLE: the service is stopping"]
    assert not (here / "people.errors.csv").exists()
    assert int(ran.out.split()[0]) == len(relay.mails) == 20
    assert ran.out.splitlines()[1] == "30 were not sent. Run the same command to go on."
    assert await service.wait_exited() == 0


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_a_relay_that_is_down(service: Service, here: Path) -> None:
    """A relay that is down gives exit code 3 at the first mail, and not a failure for each row; nothing was sent."""
    await service.wait_for_log("relay-down")
    _people(here, 3000)
    ran = await _send(service, here)
    assert ran.code == 3
    assert _errors(ran) == ["UNAVAILABLE: the relay can't be reached"]
    assert ran.out.splitlines()[1:] == ["Nothing was sent. Run the same command to try again."]
    assert _files(here) == {"people.csv"}


async def test_a_service_that_is_not_listening(here: Path) -> None:
    """Without a service, the line and exit code are those of the other commands, and nothing was sent."""
    _people(here, 3)
    ran = await otpmail(*COMMAND, server="127.0.0.1:1", here=here)
    assert ran.code == 3
    assert ran.err.splitlines()[0].startswith("no service answers on 127.0.0.1:1; ")
    assert ran.out.splitlines()[1:] == ["Nothing was sent. Run the same command to try again."]
    assert _files(here) == {"people.csv"}


@pytest.mark.service(HTTP_PORT=0)
async def test_the_port_of_http(service: Service, here: Path) -> None:
    """A merge that calls HTTP_PORT says so, as the other commands do."""
    _people(here, 3)
    address = url_of(service).removeprefix("http://")
    ran = await otpmail(*COMMAND, server=address, here=here)
    assert ran.code == 3
    problem = "it speaks HTTP, and no gRPC; name the port of gRPC: PORT of the service, and not HTTP_PORT"
    assert ran.err.splitlines() == [f"no call reaches the service on {address}: {problem}"]
    assert _files(here) == {"people.csv"}


async def test_errors_are_found_before_sending(service: Service, relay: Relay, here: Path) -> None:
    """Each error in the input or the options is one line with exit code 2, before any mail is sent."""
    people = _people(here, 3, "nobody,X", "also nobody,Y")
    ran = await _send(service, here)
    assert (ran.code, ran.out) == (2, "")
    assert [line.split(": is not")[0] for line in ran.err.splitlines()] == [
        "people.csv: row 5: email",
        "people.csv: row 6: email",
    ]
    _people(here, 3)
    (here / "spring" / "body.txt").write_text("$city")
    ran = await _send(service, here)
    assert (ran.code, ran.err) == (2, "spring: $city: people.csv has no column city; its columns are email, name\n")
    for arguments, said in (
        ((*COMMAND, "--errors", "people.csv"), "--errors: people.csv is the input; name another file"),
        ((*COMMAND, "--journal", "people.csv"), "--journal: people.csv is the input; name another file"),
        (
            (*COMMAND, "--journal", "people.errors.csv"),
            "--journal: people.errors.csv is the file of --errors; name another file",
        ),
    ):
        ran = await otpmail(*arguments, server=service.address, here=here)
        assert (ran.code, ran.err) == (2, f"{said}\n")
    assert (here / "people.csv").read_text().startswith("email,name\n" + people[0])
    assert relay.mails == []


async def test_a_changed_template_is_sent_again(service: Service, relay: Relay, here: Path) -> None:
    """Without its journal a merge sends nothing again while the service remembers it, but with a changed template."""
    people = _people(here, 3)
    await _send(service, here)
    (here / "people.journal").unlink()
    assert (await _send(service, here)).out.startswith("3 of 3 relayed, 0 failed; sent now: 0, known already: 3")
    (here / "people.journal").unlink()
    subject = here / "spring" / "subject.txt"
    subject.write_text(subject.read_text().rstrip() + "!\n")
    assert (await _send(service, here)).out.startswith("3 of 3 relayed, 0 failed, in ")
    assert _arrived(relay) == Counter(people * 2)


async def test_the_help_says_how_to_send_again() -> None:
    """The help of --journal says how to send the same mails again."""
    ran = await otpmail("merge", "--help")
    words = " ".join(ran.out.replace("\u2502", " ").split())
    assert "beside people.csv. To send them again, delete it and change the template a little." in words


async def test_the_former_command() -> None:
    """`mail send --from-file`, as it was once written, gives one line with the command of today."""
    ran = await otpmail("mail", "send", "--from-file", "people.csv", "--template", "spring", "--journal", "j")
    (line,) = ran.err.splitlines()
    assert (ran.code, line) == (
        2,
        "mail send: sends one mail; for a file of recipients use: otpmail merge FILE --template NAME",
    )


async def test_rows_that_are_the_same(service: Service, relay: Relay, here: Path) -> None:
    """Rows that make the same mail are named, and sent once."""
    _people(here, 2, "p0@example.org,P & p0")
    ran = await _send(service, here)
    assert (ran.code, _errors(ran)) == (0, ["people.csv: row 4: makes the same mail as row 2; it is sent once"])
    assert ran.out.startswith("2 of 2 relayed")
    assert len(relay.mails) == 2


async def test_a_terminal_has_a_bar(service: Service, here: Path) -> None:
    """On a terminal a bar shows how many of how many, the rate, and how many were known already."""
    _people(here, 100)
    await _send(service, here)
    _people(here, 200)
    master, slave = os.openpty()
    process = await start(
        *COMMAND, server=service.address, here=here, stderr=slave, environment={"TERM": "xterm", "NO_COLOR": "1"}
    )
    os.close(slave)
    ran = await ended(process)
    shown = (await asyncio.to_thread(os.read, master, 1 << 16)).decode()
    os.close(master)
    assert ran.code == 0
    assert "200/200" in shown
    assert "100 known already" in shown
    assert "/s" in shown
