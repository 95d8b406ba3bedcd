"""The setting of the store: which URLs there are, and that a durable store needs keys that outlive the process."""

import base64
from pathlib import Path

import pytest

from settings.conftest import Load, Problems

KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"


def test_memory_is_the_default(load: Load) -> None:
    """Without STORE_URL everything is in memory, and no key is needed."""
    settings = load().store
    assert (settings.url, settings.path, settings.is_durable) == ("memory:", None, False)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:/var/lib/otpmail/store.db", "/var/lib/otpmail/store.db"),
        ("SQLite:/var/lib/otpmail/store.db", "/var/lib/otpmail/store.db"),
        ("sqlite:///var/lib/otpmail/store.db", "/var/lib/otpmail/store.db"),
        ("sqlite:/a/../b/store.db", "/b/store.db"),
        ("sqlite:/with a blank/and:colon", "/with a blank/and:colon"),
    ],
)
def test_a_file(load: Load, url: str, path: str) -> None:
    """The path follows the scheme; the three slashes of other programs' URLs are read too."""
    settings = load(STORE_URL=url, OTP_KEYS=KEYS).store
    assert (settings.path, settings.is_durable) == (Path(path), True)


def test_a_relative_file(load: Load, tmp_path: Path) -> None:
    """A relative path is one in the working directory."""
    assert load(STORE_URL="sqlite:store.db", OTP_KEYS=KEYS).store.path == tmp_path / "store.db"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://user:hunter2@example.org", "no other store is known"),
        ("sqlite", "no other store is known"),
        ("memory", "no other store is known"),
        ("memory:x", "no other store is known"),
        ("/var/lib/hunter2.db", "no other store is known"),
        ("sqlite:", "where PATH is that of a file"),
        ("sqlite:/var/lib/", "where PATH is that of a file"),
        ("sqlite::memory:", "for a store in memory write memory:"),
        ("sqlite://var/lib/store.db", "write an absolute path as sqlite:/var/lib/otpmail/store.db"),
    ],
)
def test_other_urls(problems: Problems, url: str, words: str) -> None:
    """The error is one line that says what there is, and repeats nothing of a URL that may hold a password."""
    (line,) = problems(STORE_URL=url)
    assert line.startswith("STORE_URL: must be memory: or sqlite:PATH")
    assert line.endswith(words)
    assert "hunter2" not in line


def test_a_durable_store_needs_keys(problems: Problems, load: Load) -> None:
    """With a random key the codes and mails of a file could not be read after a restart."""
    (line,) = problems(STORE_URL="sqlite:store.db")
    assert line.startswith("OTP_KEYS: is needed with STORE_URL")
    assert load(STORE_URL="sqlite:store.db", OTP_KEYS=KEYS).otp.derivation_keys
