"""The texts of --help, and the line about a command that is used wrongly."""

import json
import re
from typing import get_args

import pytest
from typer.testing import CliRunner

from otpmail.cli import app
from otpmail.cli.address import Outcomes
from otpmail.v1 import mail_pb2


def _help(command: str) -> str:
    return CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output


@pytest.mark.parametrize("command", ["mail get", "mail retry", "merge", "code validate", "caller add", "health"])
def test_no_types(command: str) -> None:
    """An argument is shown by its name, and without a type of Python."""
    shown = _help(command)
    assert "Usage:" in shown
    assert not re.search(r"<[a-z]", shown)


def test_the_states_of_a_mail() -> None:
    """`mail list --help` names each state that --state takes."""
    shown = _help("mail list")
    names = [name.removeprefix("STATE_").lower() for name, value in mail_pb2.Mail.State.items() if value]
    assert [name for name in names if name not in shown] == []


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("mail list --foo", "otpmail mail list: no such option: --foo"),
        ("mail get a b", "otpmail mail get: got unexpected extra argument(s) (b); see otpmail mail get --help"),
        ("mail send --to", "otpmail mail send: option '--to' requires an argument; see otpmail mail send --help"),
        ("mail list --limit 0", "otpmail mail list: invalid value for '--limit': must be 1 or more; see otpmail"),
        ("mail list --limit x", "otpmail mail list: invalid value for '--limit': must be a whole number; see otpmail"),
        (
            "mail list --limit 1.5",
            "otpmail mail list: invalid value for '--limit': must be a whole number; see otpmail",
        ),
        (
            f"mail list --limit {'9' * 5000}",
            "otpmail mail list: invalid value for '--limit': must be a whole number; see otpmail",
        ),
        ("nope", "otpmail: no such command 'nope'; see otpmail --help"),
        ("mail nope", "otpmail mail: no such command 'nope'; see otpmail mail --help"),
        ("code validate", "otpmail code validate: missing argument 'EMAIL'; see otpmail code validate --help"),
        ("keys new [red]", "otpmail keys new: got unexpected extra argument(s) ([red]); see otpmail keys new --help"),
        (
            "address report ada@example.org gone",
            "otpmail address report: invalid value for 'OUTCOME': 'gone' is not one of 'delivered', 'bounced',",
        ),
        (
            "dev --address-file /no/such",
            "otpmail dev: invalid value for --address-file: there is no directory /no; see",
        ),
    ],
)
def test_a_command_that_is_used_wrongly(command: str, line: str) -> None:
    """A wrong command gets one line on standard error, which says where help is, and exit code 2."""
    ran = CliRunner().invoke(app, command.split(), prog_name="otpmail", env={"COLUMNS": "60"})
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(line)


def test_the_help_of_a_report_names_its_outcomes() -> None:
    """`address report --help` names each outcome that can be reported."""
    shown = _help("address report")
    assert [outcome for outcome in get_args(Outcomes) if outcome not in shown] == []


@pytest.mark.parametrize(
    "command", ["mail list --json --foo", "mail list --foo --json", "code validate --json", "mail get a b --json"]
)
def test_a_wrong_use_in_json(command: str) -> None:
    """With --json, an option or argument that is wrong is a line of JSON on standard output too."""
    ran = CliRunner().invoke(app, command.split(), prog_name="otpmail")
    error = json.loads(ran.stdout)["error"]
    assert (ran.exit_code, error["code"]) == (2, "USAGE")
    assert error["message"] == ran.stderr.strip()


def test_a_json_that_is_no_option() -> None:
    """Behind `--`, the word --json is an argument, which asks for no JSON."""
    ran = CliRunner().invoke(app, ["mail", "get", "--", "a", "--json"], prog_name="otpmail")
    assert (ran.exit_code, ran.stdout) == (2, "")


@pytest.mark.parametrize("command", ["", "mail", "keys"])
def test_a_group_alone(command: str) -> None:
    """A group of commands without one prints its help alone."""
    ran = CliRunner().invoke(app, command.split(), prog_name="otpmail")
    assert (ran.exit_code, ran.stderr) == (2, "")
    assert ran.stdout.lstrip().startswith("Usage: otpmail ")
