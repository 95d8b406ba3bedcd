"""A relay whose name has several addresses, by the resolver of the system."""

import asyncio
import os
import shutil
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay import Faults, Relay
from service import SOURCES

SWALLOWS, ANSWERS = "127.0.0.21", "127.0.0.22"


async def test_an_address_that_swallows_packets(tmp_path: Path) -> None:
    """Of two addresses in /etc/hosts the first drops SYNs: the second is used within seconds, and is named."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs another /etc/hosts in a namespace")
    (tmp_path / "hosts").write_text(f"{SWALLOWS} relay.test\n{ANSWERS} relay.test\n")
    command = f'mount --bind {tmp_path}/hosts /etc/hosts || echo cannot; exec "$@"'
    async with Relay(Faults(auth=()), host=ANSWERS) as relay:
        with ExitStack() as opened:
            opened.enter_context(socket.create_server((SWALLOWS, relay.port), backlog=0))
            for _ in range(3):  # its queue is full, so that further SYNs are dropped
                filler = opened.enter_context(socket.socket())
                filler.settimeout(0)
                filler.connect_ex((SWALLOWS, relay.port))
            settings = {"EMAIL_HOST": "relay.test", "EMAIL_PORT": str(relay.port), "EMAIL_SECURITY": "plain"}
            process = await asyncio.create_subprocess_exec(
                *("unshare", "--mount", "sh", "-c", command, "sh", sys.executable, "-m", "otpmail", "check"),
                env={"PYTHONPATH": SOURCES, "EMAIL_FROM": "codes@example.org", **settings},
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(20):  # of the 30 s of EMAIL_TIMEOUT
                output, _ = await process.communicate()
    if b"cannot" in output.splitlines()[:1]:
        pytest.skip("may not bind mount")
    assert process.returncode == 0, output.decode()
    assert f"relay relay.test:{relay.port} (plain): connected at {ANSWERS}, no sign-in" in output.decode()
