"""The processor time of a text mail from checked draft to last reply, beside EmailMessage and aiosmtplib."""

from statistics import median

from benchmarks.peers.servers import Certificates, Relay, relay
from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_CONTENDERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "aiosmtplib": ("benchmarks.load.smtp_by_aiosmtplib", ()),
    "otpmail, window as shipped": ("benchmarks.load.smtp_by_otpmail", ("--window", 16)),
    "otpmail": ("benchmarks.load.smtp_by_otpmail", ("--window", 64)),
}


async def _measure(at: Relay, module: str, arguments: tuple[object, ...], mails: int) -> dict[str, float]:
    return await run(module, *at.arguments, *arguments, "--mails", mails)


async def test_processor_time_of_one_mail(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A text mail costs at most 60 microseconds of the process's own time, on loopback and under TLS."""
    rounds, mails = (1, 2_000) if quick else (3, 20_000)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in _CONTENDERS}
    async with relay(certificates) as at:
        for _ in range(rounds):  # by turns, so that a noisy minute disturbs all alike
            for name, (module, arguments) in _CONTENDERS.items():
                share = 10 if name == "aiosmtplib" else 1  # it takes that much longer
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
