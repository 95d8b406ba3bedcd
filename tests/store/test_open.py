"""The choice of the store by STORE_URL."""

import base64
import subprocess
import sys
from pathlib import Path

from otpmail.settings import MailSettings, OtpSettings, StoreSettings
from otpmail.store.memory import MemoryStore
from otpmail.store.open import build_store
from otpmail.store.sqlite import SqliteStore
from rules import BOOK, POLICY

KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"


def test_the_url_chooses(tmp_path: Path) -> None:
    """`memory:` is the store in memory, `sqlite:` one in a file, which is not opened yet."""
    mail, otp = MailSettings(email_from="shop@example.org"), OtpSettings.from_layers({"OTP_KEYS": KEYS})
    assert isinstance(build_store(StoreSettings(), mail, otp, rules=POLICY, proofs=BOOK), MemoryStore)
    path = tmp_path / "store.db"
    store = build_store(
        StoreSettings.from_layers({"STORE_URL": f"sqlite:{path}"}), mail, otp, rules=POLICY, proofs=BOOK
    )
    assert isinstance(store, SqliteStore)
    assert store.mails.durable
    assert not path.exists()


def test_memory_imports_nothing_of_the_others() -> None:
    """A service with its state in memory loads none of sqlite3, cryptography and redis."""
    code = "import sys, otpmail.app; print({'sqlite3', 'cryptography', 'redis'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "set()\n"
