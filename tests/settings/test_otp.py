"""The settings of codes: the keys they are derived with."""

import base64

from otpmail.settings import parse_keys
from settings.conftest import Load

KEY = base64.b64encode(b"hunter2-hunter2-hunter2-hunter2-").decode()


def test_keys_keep_their_order(load: Load) -> None:
    """The first key is the one that issues; an empty list is allowed."""
    other = base64.b64encode(bytes(32)).decode()
    assert list(parse_keys(f" new:{other} , old:{KEY}, ")) == ["new", "old"]
    assert parse_keys("") == {}
    assert load(OTP_KEYS=f"k1:{KEY}").otp.derivation_keys == {"k1": b"hunter2-hunter2-hunter2-hunter2-"}
