"""The reply to EHLO, in the forms that relays use."""

import pytest

from otpmail.smtp.ehlo import mechanisms, read_capabilities


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["AUTH PLAIN LOGIN"], ("plain", "login")),
        (["AUTH\tPLAIN LOGIN"], ("plain", "login")),  # issue of nodemailer, seen at an appliance
        (["AUTH=PLAIN LOGIN"], ("plain", "login")),  # before RFC 2554
        (["AUTH=PLAIN", "AUTH LOGIN PLAIN"], ("plain", "login")),  # Exchange: both forms
        (["auth  plain  login  "], ("plain", "login")),
        (["AUTH = PLAIN"], ("plain",)),
        (["AUTH"], ()),
        (["X-AUTH PLAIN"], ()),
        (["AUTHINFO PLAIN"], ()),
        ([], ()),
    ],
)
def test_mechanisms(lines: list[str], found: tuple[str, ...]) -> None:
    """The mechanisms are read behind blanks, a tab or an equals sign, each once and in the relay's order."""
    assert mechanisms(read_capabilities("\n".join(["relay.test", *lines]))) == found


def test_keywords() -> None:
    """Keywords count in any case and with any white space behind them; the first line is a greeting."""
    capabilities = read_capabilities("SIZE 5\npipelining\nSize\t1000 \n\n8bitmime \x1b[31m\nLIMITS  MAILMAX=7")
    assert capabilities.extensions == {
        "PIPELINING": "",
        "SIZE": "1000",
        "8BITMIME": "?[31m",
        "LIMITS": "MAILMAX=7",
    }
    assert (capabilities.size, capabilities.mail_max) == (1000, 7)
