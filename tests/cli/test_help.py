"""The texts of --help."""

import re

import pytest
from typer.testing import CliRunner

from otpmail.cli import app
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
