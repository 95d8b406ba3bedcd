"""EMAIL_HOST is a host alone: a port in it is refused, and not read as a part of an IPv6 address."""

import pytest

from otpmail.errors import SettingsError
from settings.conftest import Load


@pytest.mark.parametrize("host", ["smtp.gmail.com:465", "192.0.2.1:25", "[::1]:25", "localhost:", "a:b"])
def test_a_port_in_the_host_is_refused(load: Load, host: str) -> None:
    """The error names the setting into which the port goes."""
    with pytest.raises(SettingsError, match=r"^EMAIL_HOST: .*the port goes into EMAIL_PORT"):
        load(EMAIL="a@b.example", APP_PASSWORD="secret", EMAIL_HOST=host)


@pytest.mark.parametrize(
    ("host", "read"), [("::1", "::1"), ("[2001:db8::1]", "2001:db8::1"), ("fe80::1%lo", "fe80::1%lo")]
)
def test_an_ipv6_address_is_a_host(load: Load, host: str, read: str) -> None:
    """An IPv6 address stands alone, in brackets, or with the name of a network interface."""
    assert load(EMAIL="a@b.example", APP_PASSWORD="secret", EMAIL_HOST=host).relay.host == read
