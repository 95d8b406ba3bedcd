"""How many calls of our own functions one SendMail, SendCode and ValidateCode make; see `count_calls`."""

from benchmarks.processes import run
from benchmarks.report.results import Results
from benchmarks.scenarios.count_calls import promises


async def test_calls_of_our_own_functions(results: Results) -> None:
    """A reader who follows one SendMail or SendCode has a limited number of functions and files to visit."""
    rows = (await run("benchmarks.scenarios.count_calls", "--json"))["rows"]
    results.report(rows, *promises(rows))
