"""The access token: read again for each dial, from a file system that may not answer."""

import threading
from pathlib import Path

import pytest

from otpmail.errors import ConnectFailed
from otpmail.relays import token as module
from otpmail.relays.token import Token


async def test_reads_that_never_end_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer keeps a few threads, however often the relay is dialled."""
    answers, started = threading.Event(), list[Path]()

    def read_text(path: Path) -> str:
        started.append(path)
        answers.wait(20)
        return "token"

    monkeypatch.setattr(module, "read_text", read_text)
    monkeypatch.setattr(module, "_MOST_READS", 3)
    token = Token(tmp_path / "token")
    try:
        for _ in range(5):
            with pytest.raises(ConnectFailed, match="EMAIL_TOKEN_FILE: takes too long to read"):
                await token.read(0.01)
        assert len(started) == 3
    finally:
        answers.set()
    while token.last != "token":  # the threads go on by themselves
        pass
    assert await token.read(10) == "token"
