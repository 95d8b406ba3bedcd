"""Calls of SendCode that end without a mail, however they do: they leave the codes that people have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otp import test_service
from otp.test_service import EMAIL, Rig
from otpmail.compose.catalog import Templates
from otpmail.errors import InvalidArgument
from otpmail.model import CheckResult
from rig import call_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("empty_directory")


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A service whose mails name a person in their subject."""
    folder = tmp_path / "templates" / "en"
    folder.mkdir(parents=True)
    for name in ("subject", "body"):
        folder.joinpath(f"{name}.txt.j2").write_text("{{ variables.name }}, your code is {{ code }}")
    monkeypatch.setattr(test_service, "TEMPLATES", Templates(folder.parent, default_locale="en"))
    return Rig()


async def _with_a_name_that_is_too_long(rig: Rig, session: str) -> None:
    with pytest.raises(InvalidArgument, match="subject one that is longer"):
        await rig.send(session=session, variables={"name": "x" * 1000})


async def _with_a_name_that_is_missing(rig: Rig, session: str) -> None:
    with pytest.raises(InvalidArgument, match="the template needs"):
        await rig.send(session=session)


async def _by_a_caller_that_goes_away(rig: Rig, session: str) -> None:
    await rig.send_and_leave(session=session, variables={"name": "Eve"})


_WAYS = [_with_a_name_that_is_too_long, _with_a_name_that_is_missing, _by_a_caller_that_goes_away]


@pytest.mark.parametrize("ends", _WAYS, ids=lambda ends: ends.__name__.strip("_"))
async def test_the_code_of_a_person_stays(rig: Rig, ends: Callable[[Rig, str], Awaitable[None]]) -> None:
    """Strangers who cause calls without a mail, in sessions without number, end no code, and use up no mail."""
    sent = await rig.send(variables={"name": "Ada"})
    for number in range(30):
        await ends(rig, f"session {number}")
        await rig.codes.close()
        rig.now += 1
    assert await rig.check(sent.code) is CheckResult.VALID
    budgets = await rig.codes.addresses.budgets(call_of(), EMAIL)
    assert {budget.spent for budget in budgets} == {1}
