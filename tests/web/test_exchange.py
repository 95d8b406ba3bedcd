"""The heads of answers over HTTP: each field is one line, whatever it holds."""

from unittest.mock import Mock

import pytest

from otpmail.web.exchange import Exchange, Transport


def _exchange() -> tuple[Exchange, Mock]:
    transport = Mock(spec=Transport, is_writable=True, date=b"date: Sun, 29 Nov 2026 19:00:42 GMT\r\n")
    return Exchange(transport, "GET", "/", b"", {}, is_old=False, keep_alive=True), transport


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\n\rb"])
async def test_no_field_holds_another(value: bytes) -> None:
    """An answer with the end of a line in a name or a value is not sent, and raises ValueError."""
    for field in ((b"x-one", value), (value, b"one")):
        for _ in range(2):
            exchange, transport = _exchange()
            with pytest.raises(ValueError, match="holds the end of a line"):
                await exchange.answer(200, b"body", field)
            with pytest.raises(ValueError, match="holds the end of a line"):
                await exchange.begin(200, (b"x-two", b"2"), field)
            transport.write.assert_not_called()


async def test_the_order_of_a_head() -> None:
    """The fields stand in their order, behind the date and the length."""
    exchange, transport = _exchange()
    await exchange.answer(200, b"body", (b"content-type", b"text/plain"), (b"vary", b"origin"))
    (octets,) = transport.write.call_args.args
    assert octets == (
        b"HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 19:00:42 GMT\r\ncontent-length: 4\r\n"
        b"content-type: text/plain\r\nvary: origin\r\n\r\nbody"
    )
