"""Answers the requests on HTTP_PORT by their paths: the methods by POST, probes, and pages."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib.resources import files

from otpmail.probes import Probe, Request
from otpmail.web.exchange import Exchange
from otpmail.web.gate import Gate
from otpmail.web.methods import Method, Methods

_log = logging.getLogger("otpmail")

_OPEN = frozenset(("/livez", "/readyz"))  # they answer every Host: a kubelet asks by an address

OPENAPI = "/openapi.json"
"""The path of the description that `scripts/openapi.py` has made of the contract."""

_LATER = ((b"retry-after", b"1"),)


Pages = Callable[[Exchange], Awaitable[None]]
"""Answers for paths that are no methods."""


class WebApp:
    """Answers a request by its path.

    `probes` answer everybody, but for /metrics, which asks the `gate` as the `methods` do. `pages` answer on loopback
    alone, since they ask nobody for a token; without methods nobody gets there.
    """

    def __init__(
        self, probes: Mapping[str, Probe], gate: Gate, methods: Methods | None, pages: Pages | None = None
    ) -> None:
        self._probes = probes
        self._gate = gate
        self._methods = methods
        self._by_path: Mapping[str, Method] = {} if methods is None else methods.by_path
        self._pages = pages
        self._openapi = files("otpmail.web").joinpath("openapi.json").read_bytes()

    def __repr__(self) -> str:
        return f"<WebApp {self._methods!r}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. An error that nobody foresaw is logged, and answered 500 without a word of it."""
        try:
            if exchange.connection.is_for_probes and exchange.path not in self._probes:
                await exchange.answer_status(
                    HTTPStatus.SERVICE_UNAVAILABLE, "there are MAX_CONNECTIONS connections", *_LATER
                )
            elif (method := self._by_path.get(exchange.path)) is not None:
                await self._call(method, exchange)
            else:
                await self._answer(exchange)
        except Exception:
            fields = {"method": exchange.path}
            _log.exception("no answer to %s", exchange.path, extra={"event": "unforeseen", "fields": fields})
            raise

    async def _answer(self, exchange: Exchange) -> None:
        path, verb = exchange.path, exchange.method
        if (probe := self._probes.get(path)) is not None:
            if path not in _OPEN and (problem := self._gate.problem(exchange.headers)):
                await exchange.answer_status(HTTPStatus.FORBIDDEN, problem)
            else:
                await _probe(probe, exchange)
        elif self._methods is None:
            await exchange.answer_status(
                HTTPStatus.NOT_FOUND, f"without CALLERS_FILE there are only {', '.join(self._probes)}"
            )
        elif problem := self._gate.problem(exchange.headers):
            await exchange.answer_status(HTTPStatus.FORBIDDEN, problem)
        elif path == OPENAPI and verb in {"GET", "HEAD"}:
            kind = (b"content-type", b"application/json")
            await exchange.answer(HTTPStatus.OK, self._openapi, kind, *self._gate.cors(exchange.headers))
        elif path == OPENAPI:
            await exchange.answer_status(HTTPStatus.METHOD_NOT_ALLOWED, "", (b"allow", b"GET, HEAD"))
        elif self._pages is not None and not self._gate.is_on_loopback:
            await exchange.answer_status(
                HTTPStatus.NOT_FOUND, "pages answer only where HTTP_HOST is a loopback address"
            )
        elif self._pages is not None:
            await self._pages(exchange)
        else:
            await exchange.answer_status(HTTPStatus.NOT_FOUND, "there is no such path")

    def _call(self, method: Method, exchange: Exchange) -> Awaitable[None]:
        """Return what answers the call of a method."""
        assert self._methods is not None
        headers, verb = exchange.headers, exchange.method
        if problem := self._gate.problem(headers):
            return exchange.answer_status(HTTPStatus.FORBIDDEN, problem)
        if verb == "POST":
            return self._methods.serve(method, exchange, self._gate.cors(headers))
        if verb == "OPTIONS" and (fields := self._gate.preflight(headers)) is not None:
            return exchange.answer(HTTPStatus.NO_CONTENT, b"", *fields)
        return exchange.answer_status(HTTPStatus.METHOD_NOT_ALLOWED, "methods are called by POST", (b"allow", b"POST"))


async def _probe(page: Probe, exchange: Exchange) -> None:
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers.items()}
    request = Request(exchange.method, exchange.path, exchange.query.decode("latin-1"), texts)
    response = await page(request)
    fields = [(name.lower().encode(), value.encode()) for name, value in response.headers]
    await exchange.answer(response.status, response.body, *fields)
