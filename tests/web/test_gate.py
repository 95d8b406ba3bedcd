"""Requests of browsers, admitted by Host and Origin: the rules, and what a page of another site would try."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from http1 import JSON, SEND_CODE, request
from otpmail.web.gate import Gate

if TYPE_CHECKING:
    from service import Service

APP = "https://app.example.org"
BODY = b'{"email":"ada@example.org"}'
OPEN: dict[str, object] = {"HTTP_PORT": 0, "OTP_RESEND_SECONDS": "0"}


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        *((host, True) for host in (b"localhost", b"localhost:40701", b"LOCALHOST", b"127.0.0.1:1", b"127.9.9.9")),
        *((host, True) for host in (b"[::1]", b"[::1]:40701", b"proxy.example", b"Proxy.Example:80")),
        *((host, False) for host in (b"", b"evil.example", b"localhost.evil.example", b"evil.example:40701")),
        *(
            (host, False)
            for host in (b"localhost:x", b"localhost@evil.example", b"[::1", b"[::1]x", b"127.0.0.1.nip.io")
        ),
        *((host, False) for host in (b"0.0.0.0", b"10.0.0.1", b"localhost, evil.example", b"x" * 400, b"\xff")),
        *((host, False) for host in (b"2130706433", b"127.0.0.1.nip.io", b"0x7f.1", b"127.1", b"localhost.")),
    ],
)
def test_the_host_of_a_request_on_loopback(host: bytes, is_let_in: bool) -> None:  # noqa: FBT001  a parameter of pytest
    """Only names of loopback lead there, and those of the setting: a page's own name may have any address."""
    gate = Gate(on_loopback=True, hosts=("proxy.example",))
    for _ in range(2):
        assert bool(gate.problem({b"host": host})) is not is_let_in
    assert not Gate(on_loopback=False).problem({b"host": host})


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://app.example.org", "file://", APP + ".evil.example"]
)
def test_pages_of_other_origins(origin: str) -> None:
    """Pages of other origins are refused wherever the service listens, whatever they send."""
    for on_loopback in (True, False):
        gate = Gate(on_loopback=on_loopback, origins=(APP,))
        fields = {b"host": b"localhost:40701", b"origin": origin.encode()}
        assert gate.problem(fields)
        assert gate.preflight(fields) is None
        assert b"access-control-allow-origin" not in dict(gate.cors(fields))


def test_pages_of_the_service_itself_and_of_the_list() -> None:
    """The inbox calls the methods, and the pages of a list may."""
    gate = Gate(on_loopback=True, origins=(APP,))
    assert not gate.problem({b"host": b"localhost:40701", b"origin": b"http://localhost:40701"})
    assert gate.problem({b"host": b"localhost:40701", b"origin": b"http://localhost:40702"})
    assert not gate.problem({b"host": b"localhost:40701", b"origin": APP.encode()})


@pytest.mark.service(**OPEN)
async def test_the_host_of_a_whole_url(service: Service) -> None:
    """Where the target is a whole URL its host counts, and Host does not (RFC 9112, 3.2.2)."""
    for url, host, status in (
        ("http://evil.example", "localhost", 403),
        ("http://evil.example:80", "localhost", 403),
        ("http://[2001:db8::1]:80", "localhost", 403),
        ("http://localhost", "evil.example", 200),
        ("http://localhost:40701", "evil.example", 200),
        ("http://[::1]:40701", "evil.example", 200),
        ("http://[::1]", "evil.example", 200),
    ):
        answer = await request(service, f"{url}/openapi.json", headers={"host": host})
        assert (answer.status, url) == (status, url)


@pytest.mark.service(**OPEN)
async def test_no_page_of_another_site_reaches_the_methods(service: Service) -> None:
    """A request that a page can send without asking is refused by its type, one that it must ask for by the answer.

    `form`, `text/plain` and no type at all are simple requests of a page (Fetch, 2.2.2).
    """
    page = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""):
        assert (await request(service, SEND_CODE, BODY, {"content-type": kind})).status == 415
        assert (await request(service, SEND_CODE, BODY, page | {"content-type": kind})).status == 403
    assert (await request(service, SEND_CODE, BODY, page | JSON)).status == 403
    asked = {**page, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await request(service, SEND_CODE, headers=asked, method="OPTIONS")
    assert preflight.status == 403
    assert not any(name.startswith("access-control") for name in preflight.fields)
    rebound = await request(service, SEND_CODE, BODY, {"host": "evil.example", "origin": "http://evil.example", **JSON})
    assert rebound.status == 403
    assert (await request(service, "/inbox", headers={"host": "evil.example"})).status == 403
    assert not service.logged("mail-relayed")


@pytest.mark.service(**OPEN)
async def test_only_checks_of_health_answer_any_host(service: Service) -> None:
    """A page that leads its own name to loopback reads no figures; a kubelet asks for health by any address."""
    for path, status in (("/metrics", 403), ("/livez", 200), ("/readyz", 200)):
        for fields in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
            assert (await request(service, path, headers=fields)).status == status
        assert (await request(service, path)).status == 200


@pytest.mark.service(**OPEN, HTTP_CORS_ORIGINS=f"{APP} http://localhost:3000")
async def test_pages_of_the_list_call(service: Service) -> None:
    """Pages of the list get answers that they may read: to the preflight, to calls, and of errors."""
    asked = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await request(service, SEND_CODE, headers=asked, method="OPTIONS")
    assert preflight.status == 204
    assert preflight.fields["access-control-allow-origin"] == APP
    assert "connect-timeout-ms" in preflight.fields["access-control-allow-headers"]
    for body, status in ((BODY, 200), (b"{}", 400)):
        answer = await request(service, SEND_CODE, body, {"origin": APP, **JSON})
        assert (answer.status, answer.fields["access-control-allow-origin"]) == (status, APP)
        assert answer.fields["vary"] == "origin"
    assert (await request(service, SEND_CODE, BODY, {"origin": "https://evil.example", **JSON})).status == 403
