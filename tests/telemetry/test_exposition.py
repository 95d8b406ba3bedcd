"""What /metrics, /livez and /readyz answer, and in which format."""

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter

from otpmail.probes import Request, Response
from otpmail.telemetry.exposition import Exposition


@pytest.fixture
def exposition() -> Exposition:
    """Make an exposition of two counters."""
    registry = CollectorRegistry()
    Counter("apples", "Apples.", registry=registry).inc(3)
    Counter("pears", "Pears.", registry=registry)
    return Exposition(registry)


async def _get(
    exposition: Exposition, path: str = "/metrics", query: str = "", method: str = "GET", **headers: str
) -> Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await exposition.answer(Request(method, path, query, fields))


async def test_probes_follow_the_service() -> None:
    """For GET and HEAD /livez is 200 unless something hangs; /readyz is 200 without a problem, else 503 with it."""
    problems, hangs = [""], [""]
    exposition = Exposition(CollectorRegistry(), lambda: problems[0], hang=lambda: hangs[0])
    for method in ("GET", "HEAD"):
        live, ready = await _get(exposition, "/livez", "verbose", method), await _get(exposition, "/readyz", "", method)
        assert (live.status, live.body, dict(live.headers)["Cache-Control"]) == (200, b"live\n", "no-store")
        assert (ready.status, ready.body) == (200, b"ready\n")
    problems[0] = "no relay is up"
    assert (await _get(exposition, "/livez")).status == 200
    ready = await _get(exposition, "/readyz")
    assert (ready.status, ready.body) == (503, b"not ready: no relay is up\n")
    hangs[0] = "process 2 does not answer"
    live = await _get(exposition, "/livez")
    assert (live.status, live.body) == (503, b"not live: process 2 does not answer\n")


async def test_text_is_the_default(exposition: Exposition) -> None:
    """A client that asks for nothing special gets Prometheus's text format."""
    answer = await _get(exposition)
    assert dict(answer.headers)["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "apples_total 3.0" in answer.body.decode().splitlines()


async def test_openmetrics_by_accept(exposition: Exposition) -> None:
    """OpenMetrics is served to a client that accepts it, as Prometheus does."""
    answer = await _get(exposition, accept="application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert dict(answer.headers)["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


async def test_an_unknown_version_in_accept_gets_the_text_format(exposition: Exposition) -> None:
    """A version that is not made of numbers is no error, so no client can fill the log with tracebacks."""
    answer = await _get(exposition, accept="application/openmetrics-text; version=abc")
    assert dict(answer.headers)["Content-Type"].startswith("text/plain")
    assert "apples_total 3.0" in answer.body.decode().splitlines()


async def test_compressed_where_accepted(exposition: Exposition) -> None:
    """The body is compressed for a client that accepts gzip, as Prometheus does."""
    answer = await _get(exposition, accept_encoding="gzip")
    assert dict(answer.headers)["Content-Encoding"] == "gzip"
    assert b"apples_total 3.0" in gzip.decompress(answer.body)


async def test_names_limit_the_answer(exposition: Exposition) -> None:
    """`name[]` asks for some names alone."""
    answer = await _get(exposition, query="name[]=pears_total")
    assert b"pears_total" in answer.body
    assert b"apples" not in answer.body


async def test_metrics_are_refreshed_first(caplog: pytest.LogCaptureFixture) -> None:
    """Each answer has what the refresh brought; where that fails, the log says so and the last values are shown."""
    registry = CollectorRegistry()
    counter = Counter("asked", "Asked.", registry=registry)

    async def refresh() -> None:
        counter.inc()
        if registry.get_sample_value("asked_total") == 2:
            message = "boom"
            raise RuntimeError(message)

    exposition = Exposition(registry, refresh=refresh)
    for expected in (b"asked_total 1.0", b"asked_total 2.0"):
        answer = await _get(exposition)
        assert answer.status == 200
        assert expected in answer.body.splitlines()
    assert [record.message for record in caplog.records] == ["nothing new for /metrics"]
    await _get(exposition, "/livez")
    assert registry.get_sample_value("asked_total") == 2


@pytest.mark.parametrize(
    ("path", "method", "status", "allow"),
    [("/", "GET", 404, None), ("/metrics/", "GET", 404, None), ("/metrics", "POST", 405, "GET, HEAD")],
)
async def test_nothing_else_is_served(
    exposition: Exposition, path: str, method: str, status: int, allow: str | None
) -> None:
    """Other paths are 404; other methods are 405 and name those that are allowed."""
    answer = await _get(exposition, path, method=method)
    assert (answer.status, dict(answer.headers).get("Allow")) == (status, allow)
