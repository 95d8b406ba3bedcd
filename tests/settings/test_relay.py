"""The settings of one relay: which security is used, and which credentials are complete."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from otpmail.errors import SettingsError
from otpmail.relays.secure import tls_context
from settings.conftest import Load, Problems


@pytest.mark.parametrize(
    ("values", "security"),
    [
        ({}, "tls"),
        ({"EMAIL_PORT": "465"}, "tls"),
        ({"EMAIL_PORT": "587"}, "starttls"),
        ({"EMAIL_PORT": "25"}, "starttls"),
        ({"EMAIL_PORT": "587", "EMAIL_SECURITY": "TLS"}, "tls"),
        ({"EMAIL_PORT": "465", "EMAIL_SECURITY": "starttls"}, "starttls"),
        ({"EMAIL_PORT": "25", "EMAIL_SECURITY": "plain"}, "plain"),
        ({"EMAIL_PORT": "587", "EMAIL_SECURITY": ""}, "starttls"),
    ],
)
def test_security_follows_the_port_unless_it_is_set(load: Load, values: dict[str, str], security: str) -> None:
    """Port 465 speaks TLS from the first byte, any other port requires STARTTLS; plain is never the default."""
    assert load(**values).relay.security == security


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 300),
        ({"EMAIL_TIMEOUT": "3"}, 30),
        ({"EMAIL_COMMAND_TIMEOUT": "45s"}, 45),
        ({"EMAIL_TIMEOUT": "3", "EMAIL_COMMAND_TIMEOUT": "2m"}, 120),
    ],
)
def test_a_command_has_ten_times_as_long_as_a_step(load: Load, values: dict[str, str], seconds: float) -> None:
    """EMAIL_COMMAND_TIMEOUT is ten times EMAIL_TIMEOUT, and so 5 minutes (RFC 5321, 4.5.3.2), unless it is set."""
    assert load(**values).relay.command_timeout == seconds


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_password_may_go_unencrypted_to_this_machine(load: Load, host: str) -> None:
    """Loopback is the one place where plain is allowed with credentials."""
    values = {"EMAIL": "me", "APP_PASSWORD": "hunter2", "EMAIL_SECURITY": "plain", "EMAIL_HOST": host}
    assert load(**values).relay.security == "plain"


def test_a_token_replaces_the_password(load: Load, tmp_path: Path) -> None:
    """XOAUTH2 signs in with a name and a token file, whose content the settings do not hold."""
    (tmp_path / "token").write_text("hunter2")
    settings = load(EMAIL="me@example.org", EMAIL_AUTH="XOAUTH2", EMAIL_TOKEN_FILE="token")
    assert settings.relay.auth == "xoauth2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(("name", "shown"), [("EMAIL_CA_FILE", "{!r} "), ("EMAIL_TOKEN_FILE", "")])
def test_a_directory_is_no_file(problems: Problems, tmp_path: Path, name: str, shown: str) -> None:
    """A path that can't be read is found at the start, and shown unless it may be the token itself."""
    path = str(tmp_path)
    assert problems(**{name: path}) == (f"{name}: {shown.format(path)}is not a file that can be read",)


def test_a_wrong_token_file_asks_for_no_password(problems: Problems) -> None:
    """A token is an alternative to a password also where its file can't be read yet."""
    line = "EMAIL_TOKEN_FILE: is not a file that can be read"
    assert problems(EMAIL="me@example.org", EMAIL_TOKEN_FILE="nowhere") == (line,)


def test_plain_text_reads_no_authorities(load: Load) -> None:
    """A relay in plain text has a context that trusts nobody; one by TLS trusts the system's authorities."""
    usual = {"EMAIL_FROM": "a@example.org", "EMAIL_HOST": "localhost"}
    plain = tls_context(load(**usual, EMAIL_SECURITY="plain").relay)
    assert plain.verify_mode is ssl.CERT_REQUIRED
    assert plain.cert_store_stats()["x509"] == 0
    assert tls_context(load(**usual, EMAIL_SECURITY="tls").relay).cert_store_stats()["x509"]


def test_what_is_wrong_and_has_no_default_by_itself(problems: Problems) -> None:
    """A wrong EMAIL_HELO counts as this machine's name meanwhile, so that the other settings are checked too."""
    lines = problems(EMAIL_HELO="a b", EMAIL_SECURITY="plain", EMAIL="me", APP_PASSWORD="hunter2")
    assert [line.partition(":")[0] for line in lines] == ["EMAIL_HELO", "EMAIL_SECURITY"]


def test_a_password_from_a_file(load: Load, tmp_path: Path) -> None:
    """APP_PASSWORD_FILE holds the password; the line end after it is no part of it, and other white space is."""
    for text in (" hunter2 ", " hunter2 \n", " hunter2 \r\n"):
        (tmp_path / "password").write_bytes(text.encode())
        settings = load(EMAIL="me@example.org", APP_PASSWORD_FILE="password")
        assert settings.relay.password.get_secret_value() == " hunter2 "
        assert "hunter2" not in repr(settings)


def test_a_password_twice(problems: Problems, tmp_path: Path) -> None:
    """A password and a file of one, from whatever sources, are an error that names both."""
    (tmp_path / "password").write_text("hunter2")
    (tmp_path / ".env").write_text("APP_PASSWORD=hunter2\n")
    assert problems(APP_PASSWORD_FILE="password", EMAIL="me@example.org") == (
        "APP_PASSWORD_FILE: is set beside APP_PASSWORD; set one of the two",
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\nhunter2\n", "has more than one line"),
        (b"hunter2\thunter2", "holds a control character, such as a tab"),
        (b"hunter2\0\n", "holds a control character, such as a tab"),
        (b"hunter2\xff", "is not text in UTF-8"),
        (b"hunter2" * 10_000, "is larger than 64 KiB"),
        ("hunter2\xa0\n".encode(), "ends with a no-break space (U+00A0); remove it"),
    ],
)
def test_a_password_file_that_can_not_be_used(
    problems: Problems, tmp_path: Path, content: bytes | None, fault: str
) -> None:
    """The error is one line with the setting, the file and its fault, and does not show what it holds."""
    if content is not None:
        (tmp_path / "password").write_bytes(content)
    assert problems(APP_PASSWORD_FILE="password", EMAIL="me@example.org") == (f"APP_PASSWORD_FILE: {fault}",)


def test_each_relay_may_have_a_file(load: Load, problems: Problems, tmp_path: Path) -> None:
    """A relay of EMAIL_RELAYS has the password of its URL or of its own file, and never the common one."""
    (tmp_path / "password").write_text("hunter2")
    urls = "smtps://me@one.example?password_file=password smtps://me:other@two.example smtp://three.example"
    settings = load(EMAIL_RELAYS=urls, APP_PASSWORD="common")
    assert [relay.password.get_secret_value() for relay in settings.relays] == ["hunter2", "other", ""]
    (line,) = problems(EMAIL_RELAYS="smtps://me:other@one.example?password_file=password")
    assert line == "EMAIL_RELAYS: relay 1: password_file: is set beside password; set one of the two"


def test_a_password_is_one_line(problems: Problems) -> None:
    """A control character in a password is an error, since no relay could read it."""
    assert problems(APP_PASSWORD="hunter2\n", EMAIL="me@example.org") == (
        "APP_PASSWORD: holds a control character, such as a line end",
    )


def test_a_password_needs_a_user(load: Load, problems: Problems, tmp_path: Path) -> None:
    """A password without EMAIL is an error, in the URL of a relay too; beside EMAIL_RELAYS it has no use."""
    (tmp_path / "password").write_text("hunter2")
    needed, file = "as the name to sign in with", "password_file"
    assert problems(APP_PASSWORD="hunter2", EMAIL_FROM="") == (f"EMAIL: is needed with APP_PASSWORD, {needed}",)
    assert problems(EMAIL_FROM="a@example.org") == (f"EMAIL: is needed with APP_PASSWORD, {needed}",)
    (line,) = problems(APP_PASSWORD="", APP_PASSWORD_FILE="password")
    assert line == f"EMAIL: is needed with APP_PASSWORD_FILE, {needed}"
    for url, name in (("smtp://:x@a.example", "password"), (f"smtp://a.example?{file}=password", file)):
        assert problems(EMAIL_RELAYS=url) == (f"EMAIL_RELAYS: relay 1: user: is needed with {name}, {needed}",)
    assert load(EMAIL_RELAYS="smtp://a.example", APP_PASSWORD="hunter2", APP_PASSWORD_FILE="").relay.user == ""


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"EMAIL_KEY_FILE": "file"}, "EMAIL_CERT_FILE: is needed with EMAIL_KEY_FILE"),
        ({"EMAIL_AUTH": "external"}, "EMAIL_CERT_FILE: is needed with EMAIL_AUTH=external"),
        (
            {"EMAIL_AUTH": "external", "EMAIL_CERT_FILE": "file", "EMAIL_SECURITY": "plain"},
            "EMAIL_SECURITY: plain shows the relay no certificate, which EMAIL_AUTH=external signs in by",
        ),
        (
            {"EMAIL_AUTH": "oauthbearer", "EMAIL": "me@example.org"},
            "EMAIL_TOKEN_FILE: is needed with EMAIL_AUTH=oauthbearer",
        ),
        (
            {"EMAIL_AUTH": "oauthbearer", "EMAIL_TOKEN_FILE": "file"},
            "EMAIL: is needed with EMAIL_AUTH=oauthbearer, as the name to sign in with",
        ),
        ({"EMAIL_TOKEN_FILE": "file"}, "EMAIL: is needed with EMAIL_TOKEN_FILE, as the name to sign in with"),
        ({"EMAIL_CERT_FILE": "missing"}, "EMAIL_CERT_FILE: 'missing' is not a file that can be read"),
    ],
)
def test_certificates_and_tokens(problems: Problems, tmp_path: Path, values: dict[str, str], line: str) -> None:
    """A setting that a way to sign in lacks is named, with the setting that asks for it."""
    (tmp_path / "file").write_text("x")
    assert problems(EMAIL_FROM="codes@example.org", **values) == (line,)


def test_a_token_without_a_mechanism(load: Load, tmp_path: Path) -> None:
    """A token file without a password is signed in with, by whichever mechanism for tokens is offered."""
    (tmp_path / "token").write_text("x")
    relay = load(EMAIL="me@example.org", EMAIL_TOKEN_FILE="token").relay
    assert (relay.has_token, relay.signs_in, relay.auth) == (True, True, None)
    relay = load(EMAIL="me@example.org", EMAIL_TOKEN_FILE="token", APP_PASSWORD="hunter2").relay
    assert not relay.has_token


def test_a_certificate_that_can_not_be_used(load: Load, tmp_path: Path) -> None:
    """A certificate without its key, with another's, or with one that needs a password is refused at the start."""
    authority = trustme.CA()
    one, two = authority.issue_cert("one.test"), authority.issue_cert("two.test")
    one.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    two.private_key_pem.write_to_path(str(tmp_path / "key"))
    key = serialization.load_pem_private_key(one.private_key_pem.bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "locked").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    for name, words in (
        ("key", "EMAIL_KEY_FILE: the key is not that of the certificate in EMAIL_CERT_FILE"),
        ("locked", "EMAIL_KEY_FILE: the key is encrypted; write it to a file without a password"),
        ("", "EMAIL_CERT_FILE: cert holds no certificate with its private key in PEM form"),
    ):
        relay = load(EMAIL_FROM="a@example.org", EMAIL_CERT_FILE="cert", EMAIL_KEY_FILE=name).relay
        with pytest.raises(SettingsError) as caught:
            tls_context(relay)
        assert caught.value.problems == (words,)
