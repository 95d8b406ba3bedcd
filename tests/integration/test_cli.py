"""The command line as a person uses it: `otpmail dev`, and the commands that call it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_reflection.v1alpha import reflection, reflection_pb2

import otpmail as package
from calls import parsed, scrape
from commands import otpmail
from otpmail.model import ALPHABET
from otpmail.v1 import mail_pb2
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay import Relay

_MAIL = ("mail", "send", "--to", "ada@example.org", "--text", "Hi")


@pytest.fixture
async def dev() -> AsyncIterator[Service]:
    """`otpmail dev`, with no setting but where it listens."""
    async with Service(command="dev", EMAIL=None, APP_PASSWORD=None, EMAIL_FROM=None) as service:
        await service.wait_until_serving()
        yield service


async def test_a_code_by_the_command_line(dev: Service) -> None:
    """`code send` mails a code, `otpmail dev` prints the mail, and `code validate` accepts the code once."""
    sent = await otpmail("code", "send", "ada@example.org", "--json", server=dev.address)
    assert sent.code == 0
    code = json.loads(sent.out)["otp_code"]
    await dev.wait_for_output("mail to ada@example.org")
    await dev.wait_for_output(f"{code} is your sign-in code")
    wrong = await otpmail("code", "validate", "ada@example.org", f"{(int(code) + 1) % 10**6:06d}", server=dev.address)
    assert (wrong.code, wrong.out.strip()) == (1, "wrong code, 4 attempts left")
    right = await otpmail("code", "validate", "ada@example.org", code, server=dev.address)
    assert (right.code, right.out.strip()) == (0, "valid")
    again = await otpmail("code", "validate", "ada@example.org", code, "--json", server=dev.address)
    assert again.code == 1
    assert json.loads(again.out)["result"] == "RESULT_NO_LIVE_CODE"


async def test_a_code_that_nobody_got(dev: Service) -> None:
    """`code send` of a mail that failed shows neither a code nor how long it would be valid, and ends with 1."""
    sent = await otpmail("code", "send", "550@fail.example", server=dev.address)
    assert sent.code == 1
    assert "failed" in sent.out
    assert not any(word in sent.out for word in ("reference", "valid", "code "))


async def test_the_first_screen_is_short() -> None:
    """The first line says where the service and the inbox are; in text, no line of the log before or after repeats it.

    A log in JSON has all lines, for machines.
    """
    service = Service(command="dev", LOG_FORMAT="text", EMAIL=None, APP_PASSWORD=None, EMAIL_FROM=None)
    try:
        await service.spawn()
        await service.wait_for_output("is up: ")
        await service.wait_for_output("in the inbox")
        assert re.fullmatch(
            r"otpmail dev serves on 127\.0\.0\.1:\d+, and over HTTP on http://localhost:\d+; "
            r"every mail is caught and shown here, and in the inbox at that URL\.",
            next(line for line in service.output if " INFO " not in line),
        )
        assert not [line for line in service.output if re.search("INFO (metrics|listening)", line)]
    finally:
        await service.close()
    async with Service(command="dev") as service:
        assert len(service.logged("listening")) == len(service.logged("metrics")) == 1


async def test_short_limits_are_off(dev: Service) -> None:
    """`otpmail dev` sends one code after the other without a delay."""
    for _ in range(3):
        assert (await otpmail("code", "send", "ada@example.org", server=dev.address)).code == 0


async def test_a_mail_by_the_command_line(dev: Service, tmp_path: Path) -> None:
    """`mail send` sends text and files, and prints the relay's reply for each recipient."""
    file = tmp_path / "list.txt"
    file.write_text("eggs")
    arguments = (
        "--to",
        "ada@example.org",
        "--cc",
        "Grace <grace@example.org>",
        "--subject",
        "[x] Grüße",
        "--text",
        "Hi",
    )
    ran = await otpmail("mail", "send", *arguments, "--attach", str(file), server=dev.address)
    assert ran.code == 0
    assert "relayed" in ran.out
    assert "grace@example.org: 250" in ran.out
    await dev.wait_for_output("subject [x] Grüße")
    assert dev.output[dev.output.index("Hi") + 1] == ""
    queued = await otpmail("mail", "send", *arguments, "--queue", "--json", server=dev.address)
    assert (queued.code, queued.err) == (0, "")
    assert json.loads(queued.out)["mail"]["state"] in {"STATE_QUEUED", "STATE_SENDING", "STATE_RELAYED"}


@pytest.mark.parametrize(
    ("address", "state", "code"), [("ada@example.org", "RELAYED", 0), ("550@fail.example", "FAILED", 1)]
)
async def test_a_queued_mail_that_has_settled_by_now(dev: Service, address: str, state: str, code: int) -> None:
    """`mail send --queue` is a success however far the mail has come meanwhile, unless it has failed."""
    mail = ("mail", "send", "--to", address, "--text", "Hi", "--queue", "--request-id", state, "--json")
    await otpmail(*mail, server=dev.address)
    assert (await otpmail("mail", "watch", "--request-id", state, server=dev.address)).code == code
    settled = await otpmail(*mail, server=dev.address)
    assert (settled.code, settled.err) == (code, "")
    assert json.loads(settled.out)["mail"]["state"] == f"STATE_{state}"


@pytest.mark.service(EMAIL_FROM_ALLOWED="@shop.example")
async def test_each_field_of_a_mail_by_the_command_line(service: Service, relay: Relay) -> None:
    """`mail send` has an option for each field that the reader, the relay or the caller sees."""
    arguments = (
        *("--to", "ada@example.org", "--text", "Hi", "--from", "boss@shop.example", "--sender", "a@shop.example"),
        *("--return-path", "<>", "--reply-to", "b@example.org", "--reply-to", "C <c@example.org>"),
        *("--header", "X-A: 1: one", "--header", "X-A:2", "--message-id", "<m1@shop.example>"),
        *("--label", "tenant=a=b", "--label", "campaign=", "--request-id", "r1", "--json"),
    )
    first = await otpmail("mail", "send", *arguments, server=service.address)
    assert first.code == 0, first.err
    told = json.loads(first.out)["mail"]
    assert (told["labels"], told["message_id"]) == ({"tenant": "a=b", "campaign": ""}, "<m1@shop.example>")
    again = await otpmail("mail", "send", *arguments, server=service.address)
    assert json.loads(again.out) == json.loads(first.out)
    (caught,) = relay.mails
    mail = parsed(caught.content)
    assert caught.sender == ""
    assert (mail["From"], mail["Sender"]) == ("boss@shop.example", "a@shop.example")
    assert (mail["Reply-To"], mail.get_all("X-A")) == ("b@example.org, C <c@example.org>", ["1: one", "2"])


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", HTTP_PORT=0, wait=False)
async def test_the_priority_and_the_time_of_a_mail_by_the_command_line(service: Service) -> None:
    """`mail send --priority` chooses the mail's lane, and with `--ttl` the mail expires after that time."""
    await service.wait_for_log("relay-down")
    mail = ("mail", "send", "--to", "ada@example.org", "--text", "Hi", "--queue")
    for word, count in (("urgent", 1), ("NORMAL", 2), ("bulk", 3)):
        for _ in range(count):
            ran = await otpmail(*mail, "--priority", word, "--ttl", "1h30m", server=service.address)
            assert (ran.code, ran.err) == (0, "")
    said = await scrape(service)
    lanes = {lane: said[f'otpmail_mails_waiting{{priority="{lane}"}}'] for lane in ("urgent", "normal", "bulk")}
    assert lanes == {"urgent": 1, "normal": 2, "bulk": 3}
    sent = await otpmail(*mail, "--ttl", "0.2", "--json", server=service.address)
    await service.wait_for_log("mail-settled", mail=json.loads(sent.out)["mail"]["id"], state="EXPIRED")


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--header", "X-A", "--header: 'X-A' has no colon; write it as in --header 'X-Campaign: spring'"),
        ("--label", "tenant", "--label: 'tenant' has no equals sign; write it as in --label campaign=spring"),
        ("--label", "a=1 --label=a=2", "--label: 'a' is given twice; it has one value"),
        ("--priority", "high", "--priority: 'high' is not one of urgent, normal, bulk"),
        ("--ttl", "soon", "--ttl: 'soon' is not a time above 0 such as 90s, 5m or 1h30m"),
        ("--ttl", "0s", "--ttl: '0s' is not a time above 0 such as 90s, 5m or 1h30m"),
    ],
)
async def test_a_wrong_option_of_a_mail(option: str, text: str, said: str) -> None:
    """An option that can't be read, and a label that is given twice, give exit code 2 without a call, and are named."""
    ran = await otpmail(*_MAIL, option, *text.split(), server="127.0.0.1:1")
    assert (ran.code, ran.out, ran.err.strip()) == (2, "", said)


async def test_a_field_that_the_service_refuses(dev: Service) -> None:
    """A wrong address or message id gives exit code 2 and names the field."""
    bad = await otpmail(*_MAIL, "--message-id", "m1", server=dev.address)
    said = "message_id: 'm1' is not a message id such as 1234@example.org (RFC 5322, 3.6.4)"
    assert (bad.code, bad.out, bad.err.strip()) == (2, "", said)
    bad = await otpmail("mail", "send", "--to", "nobody", "--text", "Hi", server=dev.address)
    assert bad.code == 2
    assert bad.err.startswith("to[0]: 'nobody' is not a mailbox address (an email address must have an @-sign)")


async def test_a_mail_with_nothing_in_it(dev: Service, tmp_path: Path) -> None:
    """`mail send` needs a text, HTML or a file; a caller of the service may send an empty mail."""
    to = ("mail", "send", "--to", "ada@example.org", "--subject", "Hello")
    empty = await otpmail(*to, server=dev.address)
    assert (empty.code, empty.out) == (2, "")
    (line,) = empty.err.splitlines()
    assert line.startswith("--text: is needed, as in --text 'Good morning', or --html or --attach")
    file = tmp_path / "list.txt"
    file.write_text("eggs")
    for content in (("--html", "<p>Hi</p>"), ("--attach", str(file))):
        assert (await otpmail(*to, *content, server=dev.address)).code == 0
    answer = await dev.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"]))
    assert answer.mail.state == mail_pb2.Mail.STATE_RELAYED


@pytest.mark.parametrize("command", [("health",), ("code", "send", "ada@example.org")])
async def test_a_service_that_is_not_listening(command: tuple[str, ...]) -> None:
    """Without a service, one line says where none answers, and how to start one or name another; the exit code is 3."""
    ran = await otpmail(*command, server="127.0.0.1:1")
    assert ran.code == 3
    (line,) = ran.err.splitlines()
    assert line == (
        "no service answers on 127.0.0.1:1; start one (otpmail serve, otpmail dev), or name another by --server, "
        "OTPMAIL_SERVER, or HOST and PORT"
    )


@pytest.mark.parametrize("command", [("health",), ("code", "send", "ada@example.org")])
async def test_the_port_of_http(dev: Service, command: tuple[str, ...]) -> None:
    """A command that calls HTTP_PORT says that gRPC has another port, and not that no service answers."""
    found = re.search(r"over HTTP on http://(\S+);", await dev.wait_for_output("over HTTP on"))
    assert found is not None
    address = found[1]
    ran = await otpmail(*command, server=address)
    said = (
        f"no call reaches the service on {address}: it speaks HTTP, and no gRPC; name the port of gRPC: PORT of the "
        "service, and not HTTP_PORT\n"
    )
    assert (ran.code, ran.err) == (3, said)


@pytest.mark.parametrize("command", [("health",), ("code", "send", "ada@example.org"), _MAIL])
async def test_a_malformed_address(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A malformed address is a wrong argument or setting, and not a service that is down: exit code 2."""
    for name, ran in {
        "--server": await otpmail(*command, "--server", "nonsense", here=tmp_path),
        "OTPMAIL_SERVER": await otpmail(*command, server="nonsense", here=tmp_path),
    }.items():
        assert ran.code == 2
        (line,) = ran.err.splitlines()
        assert line.startswith(f"{name}: 'nonsense' is wrong: must be host:port, ")


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_a_service_whose_relay_is_down(service: Service) -> None:
    """A service that answers with an error is quoted: it is up, only its relay is down."""
    await service.wait_for_log("relay-down")
    ran = await otpmail("code", "send", "ada@example.org", server=service.address)
    assert ran.code == 3
    assert ran.err.startswith("UNAVAILABLE: ")
    assert "no service answers" not in ran.err
    health = await otpmail("health", server=service.address)
    problem = "no relay is up: the relay can't be reached"
    assert (health.code, health.out, health.err) == (1, f"NOT_SERVING: {problem}\n", "")
    as_json = await otpmail("health", "--json", server=service.address)
    assert json.loads(as_json.out) == {"status": "NOT_SERVING", "problem": problem}
    assert (await otpmail("health", "liveness", server=service.address)).out == "SERVING\n"


async def test_health_by_the_command_line(dev: Service) -> None:
    """`health` ends with 0 while the service serves, and with 3 after its stop."""
    assert (await otpmail("health", server=dev.address)).out.strip() == "SERVING"
    assert (await otpmail("health", "otpmail.v1.OtpService", server=dev.address)).code == 0
    address = dev.address
    await dev.stop()
    assert (await otpmail("health", server=address)).code == 3


@pytest.mark.parametrize("command", [("health",), ("code", "send", "ada@example.org")])
async def test_which_service_is_called(dev: Service, tmp_path: Path, command: tuple[str, ...]) -> None:
    """--server wins over OTPMAIL_SERVER, and that over HOST and PORT, also in .env; other settings do not matter."""
    port = dev.address.rpartition(":")[2]
    nowhere = "127.0.0.1:1"
    assert (await otpmail(*command, "--server", dev.address, server=nowhere, here=tmp_path)).code == 0
    (tmp_path / ".env").write_text(f"PORT={port}\nHOST=0.0.0.0\nWORKERS=none\n")
    assert (await otpmail(*command, server=nowhere, here=tmp_path)).code == 3
    assert (await otpmail(*command, here=tmp_path)).code == 0
    (tmp_path / ".env").write_text(f"OTPMAIL_SERVER={dev.address}\nPORT=1\n")
    assert (await otpmail(*command, server=nowhere, here=tmp_path)).code == 3
    assert (await otpmail(*command, here=tmp_path)).code == 0


async def test_a_wrong_port_by_the_command_line(tmp_path: Path) -> None:
    """Without --server a command reads HOST and PORT; a wrong one gives exit code 2 and a line that names it."""
    for command in (("health",), ("code", "send", "ada@example.org")):
        ran = await otpmail(*command, here=tmp_path, PORT="abc")
        assert ran.code == 2
        assert ran.err.startswith("PORT: ")


async def test_a_malformed_code_costs_no_attempt(dev: Service) -> None:
    """`code validate` refuses letters before the service counts the attempt; it skips spaces and dashes."""
    sent = await otpmail("code", "send", "ada@example.org", "--json", server=dev.address)
    code = json.loads(sent.out)["otp_code"]
    for typed in ("ABCDE0", "12345O", "1.5"):
        ran = await otpmail("code", "validate", "ada@example.org", typed, server=dev.address)
        said = f"{typed!r} is not a code: a code has digits only, or at most 12 letters of {ALPHABET}"
        assert (ran.code, ran.err.strip()) == (2, said)
    ran = await otpmail("code", "validate", "ada@example.org", "", server=dev.address)
    assert (ran.code, ran.err.strip()) == (2, "CODE: is empty; give the code as the person typed it")
    wrong = await otpmail("code", "validate", "ada@example.org", f"{(int(code) + 1) % 10**6:06d}", server=dev.address)
    assert wrong.out.strip() == "wrong code, 4 attempts left"
    right = await otpmail("code", "validate", "ada@example.org", f"{code[:3]}-{code[3:]}", server=dev.address)
    assert right.code == 0


async def test_the_wording_of_a_check(dev: Service) -> None:
    """`otpmail code validate` says "1 attempt" in the singular, and counts no attempts without a live code."""
    sent = await otpmail("code", "send", "ada@example.org", "--json", server=dev.address)
    wrong = f"{(int(json.loads(sent.out)['otp_code']) + 1) % 10**6:06d}"
    said = [(await otpmail("code", "validate", "ada@example.org", wrong, server=dev.address)).out for _ in range(4)]
    assert said[3].strip() == "wrong code, 1 attempt left"
    none = await otpmail("code", "validate", "grace@example.org", "123456", server=dev.address)
    assert (none.code, none.out.strip()) == (1, "no live code")


async def test_the_health_of_an_unknown_service(dev: Service) -> None:
    """`otpmail health` of a name that is no service is a wrong argument, and the error has the names."""
    ran = await otpmail("health", "nosuch", server=dev.address)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("there is no such service; there are mail.OtpService, ")
    assert "otpmail.v1.MailService and liveness" in ran.err


async def test_what_is_printed_of_a_code(dev: Service) -> None:
    """`otpmail code send` prints where the reference stands, if it does, how long a code is valid, and when it ends."""
    sent = await otpmail("code", "send", "ada@example.org", server=dev.address)
    last = sent.out.splitlines()[-1]
    ends = r"[0-9-]{10} [0-9:]{8} UTC"
    valid = rf"valid for 10 minutes \(until {ends}\)"
    where = r"\(in the mail too, unless OTP_SHOW_REFERENCE is false\)"
    assert re.fullmatch(rf"reference [0-9A-Z]{{4}} {where}, {valid}, code [0-9]{{6}}", last)


async def test_an_error_in_json(dev: Service) -> None:
    """With --json an error is a line of JSON on standard output too, with its status, field and time to wait."""
    asked = ("code", "send", "--json")
    wrong = await otpmail(*asked, "adaexample.org", server=dev.address)
    error = json.loads(wrong.out)["error"]
    assert (wrong.code, error["code"], error["field"]) == (2, "INVALID_ARGUMENT", "email")
    assert error["message"] in " ".join(wrong.err.split())
    usage = await otpmail(*asked, "ada@example.org", "--var", "product", server=dev.address)
    assert (usage.code, json.loads(usage.out)["error"]["code"]) == (2, "USAGE")
    away = await otpmail(*asked, "ada@example.org", server="127.0.0.1:1")
    assert (away.code, json.loads(away.out)["error"]["code"]) == (3, "UNAVAILABLE")


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_the_time_to_wait_in_json(service: Service) -> None:
    """An error that says when to try again has that time, as a number of seconds."""
    await service.wait_for_log("relay-down")
    ran = await otpmail(*_MAIL, "--json", server=service.address)
    assert json.loads(ran.out)["error"]["retry_after"] >= 1


async def test_a_repeated_check_by_the_command_line(dev: Service) -> None:
    """A check with a request id has the same answer again; a challenge id binds the check to its code."""
    sent = json.loads((await otpmail("code", "send", "ada@example.org", "--json", server=dev.address)).out)
    check = ("code", "validate", "ada@example.org", sent["otp_code"])
    other = await otpmail(*check, "--challenge-id", "AAAAAAAAAAAAAAAAAAAAAA", server=dev.address)
    assert other.code in (1, 2)
    named = (*check, "--challenge-id", sent["challenge_id"], "--request-id", "r1")
    for _ in range(2):
        ran = await otpmail(*named, server=dev.address)
        assert (ran.code, ran.out.strip()) == (0, "valid")
    assert (await otpmail(*check, server=dev.address)).code == 1


@pytest.mark.relay(final_reply="451 4.7.1 greylisted", times=1)
@pytest.mark.service(EMAIL_RETRY_SECONDS=3)
async def test_a_deferral_while_a_command_waits(service: Service) -> None:
    """A command that waits for a deferred mail says so on standard error, and then how the mail ended."""
    ran = await otpmail(*_MAIL, server=service.address)
    assert ran.code == 0
    assert "relayed" in ran.out
    assert ran.err.startswith("deferred by the relay: 451 4.7.1 greylisted; the next attempt is in ")


async def test_completion() -> None:
    """The shell's completion offers commands and options, and the script for it is printed."""
    command = Path(sys.executable).with_name("otpmail")

    async def run(*arguments: str, **environment: str) -> str:
        """Run the command by its own name in a bash, whose script it prints, and return what it prints."""
        line = f"{shlex.join((str(command), *arguments))}; true"  # bash would give its place to the last command
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", line), env=os.environ | environment, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out.decode()

    typed = {"COMP_WORDS": "otpmail code send --lo", "COMP_CWORD": "3"}
    assert await run(**typed, _OTPMAIL_COMPLETE="complete_bash") == "--locale\n"
    for words, offered in (("mail list --state fa", "failed\n"), ("mail send --priority u", "urgent\n")):
        typed = {"COMP_WORDS": f"otpmail {words}", "COMP_CWORD": "4"}
        assert await run(**typed, _OTPMAIL_COMPLETE="complete_bash") == offered
    begun = {"_TYPER_COMPLETE_ARGS": "otpmail co", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for shell, form in (("zsh", '"code":"'), ("fish", "code\t")):
        assert form in await run(**begun, _OTPMAIL_COMPLETE=f"complete_{shell}")
    assert "complete -o default -F _otpmail_completion otpmail" in await run("--show-completion")


async def test_ctrl_c_during_the_imports(tmp_path: Path) -> None:
    """Ctrl-C while a command still imports its parts ends it with 130, and prints nothing."""
    # In place of the first library that the command line imports.
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()\n")
    sources = Path(package.__file__).parents[1]
    ran = await otpmail("health", PYTHONPATH=f"{tmp_path}{os.pathsep}{sources}")
    assert ran == (130, "", "")


async def test_ctrl_c_while_the_commands_are_made(tmp_path: Path) -> None:
    """Ctrl-C after the imports, while typer reads the options of each command, ends it with 130 too."""
    interrupted = (
        "import os, signal, typer.main\ntyper.main.get_command = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(f"import os, signal, typer.main\n{interrupted}\n")
    sources = Path(package.__file__).parents[1]
    assert await otpmail("health", PYTHONPATH=f"{tmp_path}{os.pathsep}{sources}") == (130, "", "")


@pytest.mark.parametrize("command", [(), ("check",), ("mail", "send"), ("merge",)])
async def test_the_help_of_flags(command: tuple[str, ...]) -> None:
    """--help shows no type at a flag, after which no value may stand."""
    ran = await otpmail(*command, "--help")
    assert ran.code == 0
    assert "--help" in ran.out
    assert "<bool>" not in ran.out


async def test_the_version() -> None:
    """`otpmail --version` prints the installed version."""
    ran = await otpmail("--version")
    assert (ran.code, ran.out.strip()) == (0, f"otpmail {version('otpmail')}")


@pytest.mark.parametrize("command", ["serve", "check", "dev"])
async def test_a_misspelt_setting(tmp_path: Path, command: str) -> None:
    """A name in .env that is not a setting ends the start with exit code 2; one line suggests the right name."""
    (tmp_path / ".env").write_text("EMAIL_FROM=codes@example.org\nEMIAL_HOST=mail.example.org\n")
    ran = await otpmail(command, here=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.strip() == "EMIAL_HOST: is in .env, but there is no such setting; did you mean EMAIL_HOST?"


@pytest.mark.parametrize("command", [("serve",), ("check",), ("dev",), ("health",)])
async def test_a_malformed_line_in_env(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A line of .env that is not an assignment ends every command that reads .env, with exit code 2 and one line."""
    (tmp_path / ".env").write_text("EMAIL_FROM=codes@example.org\nEMAIL_HOST mail.example.org\n")
    ran = await otpmail(*command, here=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.strip() == ".env: line 2: is neither NAME=value nor a comment, which begins with #"


async def test_dev_prints_examples(dev: Service) -> None:
    """The commands that `otpmail dev` prints work unchanged: with its program and its address."""
    line = await dev.wait_for_output(" code send ")
    assert line.strip() == f"{shlex.quote(sys.executable)} -m otpmail code send ada@example.org --server {dev.address}"


async def test_dev_names_the_settings_that_it_ignores(tmp_path: Path) -> None:
    """`otpmail dev` names the settings that its own values replace, also wrong ones, and wherever they are set."""
    (tmp_path / "app_password").write_text("secret")
    settings = {"EMAIL_HOST": "mail.example.org", "EMAIL_PORT": "wrong", "EMAIL_WINDOW": "8", "EMAIL_CA_FILE": ""}
    async with Service(command="dev", EMAIL_FROM=None, SECRETS_DIR=tmp_path, **settings) as service:
        await service.stop()
    (line,) = (line for line in service.output if "ignores" in line)
    assert line == (
        "otpmail dev uses its own relay and values; it ignores your EMAIL_HOST, EMAIL_PORT, EMAIL, APP_PASSWORD"
    )


async def _list_services(service: Service) -> reflection_pb2.ServerReflectionResponse:
    list_services = service.channel.stream_stream(
        f"/{reflection.SERVICE_NAME}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = list_services(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    return await anext(aiter(call))


async def test_reflection_is_on_in_dev(dev: Service) -> None:
    """`otpmail dev` serves reflection, so that generic clients can list both contracts."""
    answer = await _list_services(dev)
    names = {service.name for service in answer.list_services_response.service}
    assert {"mail.OtpService", "mail.MailService", "otpmail.v1.OtpService", "otpmail.v1.MailService"} <= names


async def test_reflection_is_off_in_serve(service: Service) -> None:
    """`otpmail serve` does not serve reflection unless GRPC_REFLECTION is on."""
    # A unary call: a stream would fail in another way where the answer comes before its request is written.
    ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary(
        f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_dev_relay_accepts_bdat(dev: Service) -> None:
    """The embedded relay announces PIPELINING and CHUNKING, and accepts a pipelined BDAT transaction."""
    port = int(str((await dev.wait_for_log("relay-up"))["relay"]).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b"EHLO test\r\n")
    announced = b""
    while not announced.splitlines()[-1:] or announced.splitlines()[-1][3:4] == b"-":
        announced += await reader.readline()
    assert b"PIPELINING" in announced
    assert b"CHUNKING" in announced
    body = b"Subject: by chunks\r\n\r\nbody\r\n"
    writer.write(
        b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT %d LAST\r\n%sQUIT\r\n" % (len(body), body)
    )
    assert [line[:3] for line in (await reader.read()).splitlines()] == [b"250", b"250", b"250", b"221"]
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("health", os.fsdecode(b"\xff")), "an argument is not text in UTF-8"),
        (("code", "validate", os.fsdecode(b"\xe9@example.org"), "123456"), "an argument is not text in UTF-8"),
        ((*_MAIL, "--attach", "/dev/zero"), "--attach: /dev/zero is a device, and no file"),
        ((*_MAIL, "--attach", "/proc/self/mem"), "--attach: /proc/self/mem can't be read: Input/output error"),
        (("dev", "--address-file", "/proc/a", "--no-examples"), "--address-file: /proc/a can't be written: "),
        (("health", "--server", f"unix:{'x' * 108}"), "--server: 'unix:xxx"),
    ],
)
async def test_arguments_that_can_not_be_used(tmp_path: Path, command: tuple[str, ...], line: str) -> None:
    """An argument that is no text, a file that can't be read or written, is exit code 2 and a line that names it."""
    ran = await otpmail(*command, here=tmp_path, HOST=f"unix:{tmp_path}/s")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(line)
    assert "Traceback" not in ran.err
