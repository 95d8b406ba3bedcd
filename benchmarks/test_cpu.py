"""The processor time that a text mail costs from checked draft to last reply, beside EmailMessage and aiosmtplib."""

from statistics import median

from benchmarks.processes import Certificates, Relay, relay, run
from benchmarks.results import Promise, Results

_CONTENDERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "aiosmtplib": ("benchmarks.peers.aiosmtplib_cpu", ()),
    "otpmail, the window it has unset": ("benchmarks.cpu_otpmail", ("--window", 16)),
    "otpmail": ("benchmarks.cpu_otpmail", ("--window", 64)),
}


async def _measure(at: Relay, module: str, arguments: tuple[object, ...], mails: int) -> dict[str, float]:
    return await run(module, *at.reach, *arguments, "--mails", mails)


async def test_processor_time_of_one_mail(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A text mail costs at most 60 microseconds of the process's own time, on loopback and under TLS."""
    rounds, mails = (1, 2_000) if quick else (3, 20_000)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in _CONTENDERS}
    async with relay(certificates) as at:
        for _ in range(rounds):  # side by side, so that a noisy minute is everybody's
            for name, (module, arguments) in _CONTENDERS.items():
                share = 10 if module.startswith("benchmarks.peers") else 1  # it takes that much longer
                measured[name].append(await _measure(at, module, arguments, mails // share))
    assert at.counts["errors"] == 0, at.counts["first_error"]
    assert at.counts["mails"] == sum(one["mails"] for ones in measured.values() for one in ones)
    cpu = {name: median(one["cpu_us"] for one in ones) for name, ones in measured.items()}
    rows: list[dict[str, object]] = [
        {
            "sender": name,
            "mode": ones[0]["mode"],
            "window": ones[0]["window"],
            "cpu us/mail": cpu[name],
            "mails/s": median(one["rate"] for one in ones),
            "times less": cpu["aiosmtplib"] / cpu[name],
        }
        for name, ones in measured.items()
    ]
    results.report(rows, Promise(what="microseconds a mail", figure=cpu["otpmail"], at_most=60, timed=True))
