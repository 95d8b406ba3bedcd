"""How metrics are served: where, in which format, and what a taken port says."""

import asyncio
import gzip
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPResponse

import pytest
from prometheus_client import CollectorRegistry, Counter

from otpmail.errors import SettingsError
from otpmail.telemetry.exposition import MetricsServer


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Serve a registry of two counters; gives the URL."""
    registry = CollectorRegistry()
    Counter("apples", "Apples.", registry=registry).inc(3)
    Counter("pears", "Pears.", registry=registry)
    server = MetricsServer(registry)
    yield await server.start("127.0.0.1", 0)
    await server.stop()


async def _get(url: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    request = urllib.request.Request(url, method=method, headers=headers)

    def fetch() -> tuple[HTTPResponse, bytes]:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response, response.read()

    return await asyncio.to_thread(fetch)


async def test_probes_follow_the_service() -> None:
    """For GET and HEAD /livez is 200 in any case; /readyz is 200 without a problem, else 503 with the problem."""
    problems = ["", "no relay is up"]
    server = MetricsServer(CollectorRegistry(), lambda: problems[0])
    url = (await server.start("127.0.0.1", 0)).removesuffix("/metrics")
    try:
        for method, live, ready in (("GET", b"live\n", b"ready\n"), ("HEAD", b"", b"")):
            response, body = await _get(f"{url}/livez?verbose", method)
            assert (response.status, body, response.headers["Cache-Control"]) == (200, live, "no-store")
            response, body = await _get(f"{url}/readyz", method)
            assert (response.status, body) == (200, ready)
        problems.pop(0)
        assert (await _get(f"{url}/livez"))[0].status == 200
        with pytest.raises(urllib.error.HTTPError) as caught:
            await _get(f"{url}/readyz")
        assert (caught.value.code, caught.value.read()) == (503, b"not ready: no relay is up\n")
        caught.value.close()
        with pytest.raises(urllib.error.HTTPError) as caught:
            await _get(f"{url}/livez", "POST")
        assert caught.value.code == 405
        caught.value.close()
    finally:
        await server.stop()


async def test_text_is_the_default(url: str) -> None:
    """A client that asks for nothing special gets Prometheus's text format."""
    response, body = await _get(url)
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "apples_total 3.0" in body.decode().splitlines()


async def test_openmetrics_by_accept(url: str) -> None:
    """OpenMetrics is served to a client that accepts it, as Prometheus does."""
    response, body = await _get(url, Accept="application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


async def test_an_unknown_version_in_accept_gets_the_text_format(url: str) -> None:
    """A version that is not made of numbers is no error, so no client can fill the log with tracebacks."""
    response, body = await _get(url, Accept="application/openmetrics-text; version=abc")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "apples_total 3.0" in body.decode().splitlines()


async def test_compressed_where_accepted(url: str) -> None:
    """The body is compressed for a client that accepts gzip, as Prometheus does."""
    response, body = await _get(url, **{"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"apples_total 3.0" in gzip.decompress(body)


async def test_names_limit_the_answer(url: str) -> None:
    """`name[]` asks for some names alone."""
    _, body = await _get(f"{url}?name[]=pears_total")
    assert b"pears_total" in body
    assert b"apples" not in body


async def test_head_is_answered_without_a_body(url: str) -> None:
    """HEAD is for checks that need no metrics."""
    response, body = await _get(url, "HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("path", "method", "status", "allow"),
    [("/", "GET", 404, None), ("/metrics/", "GET", 404, None), ("/metrics", "POST", 405, "GET, HEAD")],
)
async def test_nothing_else_is_served(url: str, path: str, method: str, status: int, allow: str | None) -> None:
    """Other paths are 404; other methods are 405 and name those that are allowed."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        await _get(url.removesuffix("/metrics") + path, method)
    assert (raised.value.code, raised.value.headers["Allow"]) == (status, allow)
    raised.value.close()


async def test_where_it_cannot_listen_the_setting_is_named(url: str) -> None:
    """A taken port or an impossible host is a settings error with the cause in few words."""
    server = MetricsServer(CollectorRegistry())
    port = int(url.rpartition(":")[2].partition("/")[0])
    taken = rf"^HTTP_HOST, HTTP_PORT: can't listen on 127\.0\.0\.1:{port}: Address already in use$"
    with pytest.raises(SettingsError, match=taken):
        await server.start("127.0.0.1", port)
    with pytest.raises(SettingsError, match=r"can't listen on a\.\.b:0: ."):
        await server.start("a..b", 0)
    with pytest.raises(SettingsError, match=r"can't listen on nowhere\.invalid:0: ."):
        await server.start("nowhere.invalid", 0)
    await server.stop()


async def test_an_ipv6_address_makes_a_url() -> None:
    """An IPv6 address is in brackets, so that the URL can be opened as shown."""
    server = MetricsServer(CollectorRegistry())
    try:
        url = await server.start("::1", 0)
    except SettingsError:
        pytest.skip("this machine has no IPv6")
    assert url.startswith("http://[::1]:")
    await _get(url)
    await server.stop()
