"""Runs the service where memory is short: in a cgroup where this user may make one, else with less address space.

As a program (`python -m attacks.limited serve`) it is `otpmail` in there.
"""

import contextlib
import os
import resource
from pathlib import Path
from typing import Any

from service import Service

MEMORY = 512 << 20
"""Octets that the process may have resident."""

ADDRESS_SPACE = 1536 << 20
"""Octets of address space where there are no cgroups: threads and libraries take most of what is not resident."""

_CGROUP = "OTPMAIL_TEST_CGROUP"
_DESCRIPTORS = "OTPMAIL_TEST_DESCRIPTORS"
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class LimitedService(Service):
    """The service as a process with little memory. `cgroup` is the folder of its cgroup, None without one."""

    module = "attacks.limited"
    descriptors: int | None = None
    """How many files it may open, None for as many as this process."""

    def __init__(self, **settings: object) -> None:
        self.cgroup = _make_cgroup()
        given: dict[str, Any] = {_CGROUP: self.cgroup, _DESCRIPTORS: self.descriptors, **settings}
        super().__init__(**given)

    async def close(self) -> None:
        """Remove the cgroup too."""
        await super().close()
        if self.cgroup is not None:
            with contextlib.suppress(OSError):
                self.cgroup.rmdir()

    @property
    def allowed(self) -> int:
        """The most octets that it may have resident."""
        return ADDRESS_SPACE if self.cgroup is None else MEMORY

    @property
    def peak(self) -> int:
        """The most octets that the process has had resident."""
        lines = Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _make_cgroup() -> Path | None:
    """Make a cgroup with the limit, of either version; None where this user may not."""
    name = f"otpmail-test-{os.getpid()}"
    for parent, limit in ((_V1, "memory.limit_in_bytes"), (_V2, "memory.max")):
        group = parent / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(MEMORY))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


def _enter() -> None:
    group = os.environ.get(_CGROUP)
    if group:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    else:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    if descriptors := int(os.environ.get(_DESCRIPTORS, "0")):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


if __name__ == "__main__":
    _enter()
    from otpmail.__main__ import main

    main()
