"""`otpmail mail send --from-file` as a process, to a service as a process."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from integration.calls import parsed, text_of
from integration.commands import Ran, ended, otpmail, start
from relay import Faults

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Relay
    from service import Service

COMMAND = ("mail", "send", "--from-file", "people.csv", "--template", "spring")
KEPT = (
    "Who got it is in people.journal, and gets no second mail when the file is sent again. To start over, delete it; "
    "for a day, the service itself remembers too."
)


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


def _in_journal(here: Path) -> int:
    path = here / "people.journal"
    return path.read_text().count(" RELAYED\n") if path.exists() else 0


async def _restart(service: Service) -> None:
    await service.stop()
    await service.start()
    await service.wait_for_log("relay-up")


async def _send(service: Service, here: Path, *more: str) -> Ran:
    return await otpmail(*COMMAND, *more, server=service.address, here=here)


async def test_a_merge(service: Service, relay: Relay, here: Path) -> None:
    """Each row is a mail, filled in and escaped; the summary says so, with no errors file. Again, nothing goes."""
    people = _people(here, 1000)
    (here / "people.errors.csv").write_text("row,email,code,message\n")
    ran = await _send(service, here, "--from", "Shop <codes@example.org>", "--reply-to", "help@example.org")
    assert (ran.code, ran.err) == (0, "")
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
    assert (again.code, again.err) == (0, "1000 of 1000 got it before, as people.journal says\n")
    assert again.out.startswith("1000 of 1000 relayed, 1000 of them before this run, 0 failed, in ")
    assert len(relay.mails) == 1000


@pytest.mark.relay(refuse_recipients={"p3@example.org": "550 5.1.1 no such user"})
async def test_failures_are_listed_and_corrected(service: Service, relay: Relay, here: Path) -> None:
    """Exit code 1, and each failure in a file; with the row corrected, the file sends that one mail."""
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
        "unanswered": 0,
        "errors": "",
        "journal": "people.journal",
        "stopped": "",
    }
    assert _arrived(relay) == Counter({*people, "ada@example.org"} - {"p3@example.org"})


async def test_the_service_refuses(service: Service, here: Path) -> None:
    """What only the service can know is wrong is a failure with its code."""
    _people(here, 2)
    ran = await _send(service, here, "--from", "eve@example.org", "--errors", "refused.csv")
    assert ran.code == 1
    codes = [(failed["row"], failed["code"]) for failed in _listed(here / "refused.csv")]
    assert sorted(codes) == [("2", "PERMISSION_DENIED"), ("3", "PERMISSION_DENIED")]


@pytest.mark.relay(delay=0.02)
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_interrupted_and_sent_again(service: Service, relay: Relay, here: Path) -> None:
    """Ctrl-C says what was sent and how to go on, and what had not left never does; again, the rest goes, once."""
    people = _people(here, 300)
    process = await start(*COMMAND, server=service.address, here=here)
    await relay.wait_for_mails(10)
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert (ran.code, ran.err.splitlines()) == (1, ["interrupted"])
    summary, how, journal = ran.out.splitlines()
    relayed = int(summary.split()[0])
    assert 0 < relayed < 300
    assert how.startswith(f"{300 - relayed} have no result; ")
    assert how.endswith("within a day they are not mailed twice, unless the service is restarted meanwhile.")
    assert journal == KEPT
    single = await otpmail("mail", "send", "--to", "last@example.org", "--text", "Hi", server=service.address)
    assert single.code == 0  # so what was with the relay has settled
    assert relayed <= len(relay.mails) - 1 < 300
    relay.faults = replace(relay.faults, delay=0)
    again = await _send(service, here)
    assert (again.code, again.out.split(",")[0]) == (0, "300 of 300 relayed")
    assert _arrived(relay) == Counter([*people, "last@example.org"])


@pytest.mark.relay(refuse_recipients={"p3@example.org": "550 5.1.1 no such user"})
async def test_sent_again_after_a_restart_of_the_service(service: Service, relay: Relay, here: Path) -> None:
    """Whose mail was relayed gets no second one, though nobody but the journal knows; changed and new rows go."""
    people = _people(here, 10)
    await _send(service, here)
    await _restart(service)
    content = (here / "people.csv").read_text().replace("P & p5\n", "P and p5\n").replace("p3@", "p33@")
    (here / "people.csv").write_text(f"{content}ada@example.org,Ada\n")
    ran = await _send(service, here)
    assert (ran.code, ran.err) == (0, "8 of 11 got it before, as people.journal says\n")
    assert ran.out.startswith("11 of 11 relayed, 8 of them before this run, 0 failed, in ")
    once = Counter({*people, "p33@example.org", "ada@example.org"} - {"p3@example.org"})
    assert _arrived(relay) == once + Counter(["p5@example.org"])
    (here / "people.journal").unlink()
    await _restart(service)
    ran = await _send(service, here)
    assert (ran.code, ran.err) == (0, "")
    assert _arrived(relay) == once + once + Counter(["p5@example.org"])


async def test_everybody_got_it_before(service: Service, here: Path) -> None:
    """Then there is nothing to call a service for."""
    _people(here, 3)
    await _send(service, here)
    again = await otpmail(*COMMAND, server="127.0.0.1:1", here=here)
    assert (again.code, again.out.split(", 0 failed")[0]) == (0, "3 of 3 relayed, 3 of them before this run")


@pytest.mark.relay(delay=0.02)
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_killed_and_sent_again_after_a_restart(service: Service, relay: Relay, here: Path) -> None:
    """The journal is kept as results come: without a word of farewell it has lost no more than was in flight."""
    people = _people(here, 300)
    process = await start(*COMMAND, server=service.address, here=here)
    while _in_journal(here) < 10:  # noqa: ASYNC110 -- it is another process that writes
        await asyncio.sleep(0.01)
    assert len(relay.mails) < 60  # and not only when a buffer is full
    process.kill()
    await ended(process)
    known = _in_journal(here)
    await service.stop()
    first = len(relay.mails)
    relay.faults = replace(relay.faults, delay=0)
    await service.start()
    await service.wait_for_log("relay-up")
    again = await _send(service, here)
    assert again.out.startswith(f"300 of 300 relayed, {known} of them before this run, 0 failed, in ")
    assert set(_arrived(relay)) == set(people)
    assert len(relay.mails) == first + 300 - known
    assert max(_arrived(relay).values()) <= 2


@pytest.mark.relay(chunking=False, silent_at="DATA", times=1)
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1, STREAM_UNSETTLED=20)
async def test_a_service_that_stops(service: Service, relay: Relay, here: Path) -> None:
    """Exit code 3 with what the service says; what it still settles is counted; it is no failure of any row."""
    _people(here, 50)
    process = await start(*COMMAND, server=service.address, here=here)
    await relay.wait_for_command("DATA")
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping")
    relay.faults = Faults()
    relay.cut_connections()
    ran = await ended(process)
    assert ran.code == 3
    assert ran.err.splitlines() == ["UNAVAILABLE: the service is stopping"]
    assert not (here / "people.errors.csv").exists()
    assert int(ran.out.split()[0]) == len(relay.mails) == 20
    assert await service.wait_exited() == 0


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_a_relay_that_is_away(service: Service, here: Path) -> None:
    """Exit code 3 at the first mail, not a failure for each row."""
    await service.wait_for_log("relay-down")
    _people(here, 3000)
    ran = await _send(service, here)
    assert ran.code == 3
    assert ran.err.splitlines() == ["UNAVAILABLE: the relay can't be reached at the moment"]
    assert ran.out.splitlines()[1].startswith("3000 have no result; ")
    assert len(ran.out.splitlines()) == 2
    assert _files(here) == {"people.csv"}


async def test_a_service_that_is_not_there(here: Path) -> None:
    """Exit code 3 and the line that other commands have too."""
    _people(here, 3)
    ran = await otpmail(*COMMAND, server="127.0.0.1:1", here=here)
    assert ran.code == 3
    assert ran.err.splitlines()[0].startswith("no service answers on 127.0.0.1:1; ")


async def test_what_is_wrong_is_found_before_a_mail_goes(service: Service, relay: Relay, here: Path) -> None:
    """One line each and exit code 2: rows, variables, options that can't stand beside, the input as errors file."""
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
    assert (ran.code, ran.err) == (2, "spring: $city: people.csv has no such column; it has email, name\n")
    ran = await _send(service, here, "--to", "ada@example.org", "--html", "x", "--queue", "--cc", "a@b.org")
    beside = [f"{option}: can't stand beside --from-file" for option in ("--to", "--html", "--cc", "--queue")]
    assert (ran.code, ran.err.splitlines()) == (2, beside)
    for arguments, said in (
        (COMMAND[:4], "--template: is needed with --from-file"),
        (("mail", "send", "--to", "a@b.org", "--template", "spring"), "--template: goes with --from-file only"),
        (("mail", "send", "--to", "a@b.org", "--errors", "e.csv"), "--errors: goes with --from-file only"),
        (("mail", "send"), "--to: is needed, or --from-file"),
        (("mail", "send", "--to", "a@b.org", "--journal", "j"), "--journal: goes with --from-file only"),
        ((*COMMAND, "--errors", "people.csv"), "--errors: people.csv is what is to be sent"),
        ((*COMMAND, "--journal", "people.csv"), "--journal: people.csv is what is to be sent"),
        ((*COMMAND, "--journal", "people.errors.csv"), "--journal: people.errors.csv is where failures are listed"),
    ):
        ran = await otpmail(*arguments, server=service.address, here=here)
        assert (ran.code, ran.err) == (2, f"{said}\n")
    assert (here / "people.csv").read_text().startswith("email,name\n" + people[0])
    assert relay.mails == []


async def test_the_help_says_how_to_start_over() -> None:
    """Who means to send the same mails again must find out what keeps them from it."""
    ran = await otpmail("mail", "send", "--help")
    words = " ".join(ran.out.replace("\u2502", " ").split())
    assert "FILE.journal beside it when left out. To start over, delete it;" in words


async def test_rows_that_are_the_same(service: Service, relay: Relay, here: Path) -> None:
    """They are told, and sent once."""
    _people(here, 2, "p0@example.org,P & p0")
    ran = await _send(service, here)
    assert (ran.code, ran.err) == (0, "people.csv: row 4: is the same mail as that of row 2, and is sent once\n")
    assert ran.out.startswith("2 of 2 relayed")
    assert len(relay.mails) == 2


async def test_a_terminal_has_a_bar(service: Service, here: Path) -> None:
    """With how many of how many, the rate, and how many were through before; elsewhere there is none."""
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
    assert "100 before this run" in shown
    assert "/s" in shown
