"""Settings: what they may be, and how a wrong one is told without showing a secret."""

import base64
import socket
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import Settings, is_loopback, parse_keys

KEY = base64.b64encode(b"hunter2-hunter2-hunter2-hunter2-").decode()


def _load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def test_the_originals_defaults() -> None:
    """The names and defaults of the server that this one replaces stay."""
    settings = Settings.load()
    assert settings.server.address == "127.0.0.1:40700"
    assert (settings.relay.host, settings.relay.port, settings.relay.security) == ("smtp.gmail.com", 465, "tls")
    assert settings.mail.workers == 5
    assert (settings.otp.lifespan_seconds, settings.otp.cleanup_seconds) == (120, 180)
    assert (settings.otp.digits, settings.otp.attempts, settings.otp.failures_per_hour) == (6, 5, 10)
    assert (settings.otp.resend_seconds, settings.otp.return_code) == (30, False)
    assert (settings.mail.queue_size, settings.mail.mail_ttl, settings.server.drain_seconds) == (10_000, 86_400, 25)
    assert settings.mail.mail_max_bytes == 10 << 20


def test_the_originals_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the original's variables is read into its section."""
    monkeypatch.delenv("EMAIL_FROM")
    settings = _load(
        monkeypatch,
        PORT="1234",
        WORKERS="7",
        OTP_CLEANUP_SECONDS="8",
        OTP_LIFESPAN_SECONDS="9",
        EMAIL_HOST="mail.example.org",
        EMAIL_PORT="2525",
        EMAIL="me@example.org",
        APP_PASSWORD="hunter2",
    )
    assert settings.server.port == 1234
    assert settings.mail.workers == 7
    assert (settings.otp.cleanup_seconds, settings.otp.lifespan_seconds) == (8, 9)
    assert (settings.relay.host, settings.relay.port) == ("mail.example.org", 2525)
    assert settings.relay.user == "me@example.org"
    assert settings.relay.password.get_secret_value() == "hunter2"
    assert settings.mail.email_from == "me@example.org"


_WRONG = [
    ({"PORT": "x"}, "PORT"),
    ({"PORT": "70000"}, "PORT"),
    ({"PORT": "1\n2"}, "PORT"),
    ({"HOST": "0.0.0.0"}, "HOST"),
    ({"HOST": "unix:"}, "HOST"),
    ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS"),
    ({"DRAIN_SECONDS": "nan"}, "DRAIN_SECONDS"),
    ({"LOG_FORMAT": "xml"}, "LOG_FORMAT"),
    ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
    ({"GRPC_REFLECTION": "perhaps"}, "GRPC_REFLECTION"),
    ({"EMAIL_HOST": "a\nb"}, "EMAIL_HOST"),
    ({"EMAIL_PORT": "0"}, "EMAIL_PORT"),
    ({"EMAIL_SECURITY": "ssl"}, "EMAIL_SECURITY"),
    ({"EMAIL_AUTH": "basic"}, "EMAIL_AUTH"),
    ({"EMAIL_AUTH": "plain"}, "EMAIL"),
    ({"EMAIL_AUTH": "xoauth2", "EMAIL": "me@example.org"}, "EMAIL_TOKEN_FILE"),
    ({"EMAIL": "me@example.org"}, "APP_PASSWORD"),
    ({"EMAIL": "me@example.org", "APP_PASSWORD": "hunter2", "EMAIL_SECURITY": "plain"}, "EMAIL_SECURITY"),
    ({"EMAIL": "me\r\nRSET", "APP_PASSWORD": "hunter2"}, "EMAIL"),
    ({"EMAIL_CA_FILE": "nowhere.pem"}, "EMAIL_CA_FILE"),
    ({"EMAIL_TOKEN_FILE": "nowhere"}, "EMAIL_TOKEN_FILE"),
    ({"EMAIL_HELO": "a b"}, "EMAIL_HELO"),
    ({"EMAIL_HELO": "a\r\nb"}, "EMAIL_HELO"),
    ({"EMAIL_TIMEOUT": "0"}, "EMAIL_TIMEOUT"),
    ({"EMAIL_MAX_MESSAGES": "0"}, "EMAIL_MAX_MESSAGES"),
    ({"EMAIL_FROM": "nobody"}, "EMAIL_FROM"),
    ({"EMAIL_FROM": "a@example.org, b@example.org"}, "EMAIL_FROM"),
    ({"EMAIL_FROM": ""}, "EMAIL_FROM"),
    ({"WORKERS": "0"}, "WORKERS"),
    ({"QUEUE_SIZE": "0"}, "QUEUE_SIZE"),
    ({"MAIL_TTL": "0"}, "MAIL_TTL"),
    ({"MAIL_MAX_BYTES": "10"}, "MAIL_MAX_BYTES"),
    ({"EMAIL_ON_UNCERTAIN": "hope"}, "EMAIL_ON_UNCERTAIN"),
    ({"OTP_DIGITS": "3"}, "OTP_DIGITS"),
    ({"OTP_DIGITS": "11"}, "OTP_DIGITS"),
    ({"OTP_ATTEMPTS": "0"}, "OTP_ATTEMPTS"),
    ({"OTP_LIFESPAN_SECONDS": "inf"}, "OTP_LIFESPAN_SECONDS"),
    ({"OTP_RESEND_SECONDS": "-1"}, "OTP_RESEND_SECONDS"),
    ({"OTP_RESEND_SECONDS": "inf"}, "OTP_RESEND_SECONDS"),
    ({"OTP_RESEND_SECONDS": "1e300"}, "OTP_RESEND_SECONDS"),
    ({"OTP_KEYS": "hunter2"}, "OTP_KEYS"),
    ({"OTP_KEYS": f"{KEY}:k1"}, "OTP_KEYS"),
    ({"OTP_KEYS": "k1:hunter2!"}, "OTP_KEYS"),
    ({"OTP_KEYS": "k1:hünter2"}, "OTP_KEYS"),
    ({"OTP_KEYS": "k1:" + base64.b64encode(b"hunter2").decode()}, "OTP_KEYS"),
    ({"OTP_KEYS": f"k1:{KEY},k1:{KEY}"}, "OTP_KEYS"),
    ({"OTP_TEMPLATES_DIR": "nowhere"}, "OTP_TEMPLATES_DIR"),
    ({"SECRETS_DIR": "nowhere"}, "SECRETS_DIR"),
]


@pytest.mark.parametrize(("values", "name"), _WRONG)
def test_a_wrong_setting_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], name: str
) -> None:
    """One line, which opens with the setting to change, and shows no secret."""
    with pytest.raises(SettingsError) as caught:
        _load(monkeypatch, **values)
    (line,) = caught.value.problems
    assert line.startswith(f"{name}: ")
    assert line.isprintable()
    for secret in ("hunter2", "hünter2", KEY, base64.b64encode(b"hunter2").decode().rstrip("=")):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("PORT", "abc", "a whole number from 0 to 65535"),
        ("PORT", "1.5", "a whole number from 0 to 65535"),
        ("PORT", "70000", "a whole number from 0 to 65535"),
        ("HTTP_PORT", "none", "a whole number from 0 to 65535"),
        ("QUEUE_SIZE", "0", "a whole number, 1 or more"),
        ("DRAIN_SECONDS", "-1", "a number, 0 or more"),
        ("EMAIL_RATE", "10/s", "a number above 0"),
        ("EMAIL_TIMEOUT", "30s", "a number above 0"),
        ("EMAIL_TIMEOUT", "nan", "a number above 0"),
        ("OTP_LIFESPAN_SECONDS", "1e9", "a number above 0 and at most 86400"),
        ("OTP_RESEND_SECONDS", "1e9", "a number from 0 to 86400"),
        ("GRPC_REFLECTION", "perhaps", "true or false"),
        ("EMAIL_SECURITY", "ssl", "'tls', 'starttls' or 'plain'"),
        ("EMAIL_AUTH", "basic", "'plain', 'login', 'cram-md5' or 'xoauth2'"),
    ],
)
def test_what_a_value_may_be_is_told_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, may_be: str
) -> None:
    """Whatever is wrong with a value: the setting, the value, and all that it may be, in words of our own."""
    with pytest.raises(SettingsError) as caught:
        _load(monkeypatch, **{name: value})
    assert caught.value.problems == (f"{name}: {value!r} is wrong: must be {may_be}",)


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
def test_security_follows_the_port_unless_it_is_said(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], security: str
) -> None:
    """465 speaks TLS at once, any other asks for STARTTLS; plain is never guessed."""
    assert _load(monkeypatch, **values).relay.security == security


def test_words_count_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is one of a few words minds no case."""
    words = {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "Json", "EMAIL_SECURITY": "STARTTLS", "EMAIL_ON_UNCERTAIN": "Fail"}
    settings = _load(monkeypatch, **words)
    assert (settings.server.log_level, settings.server.log_format) == ("debug", "json")
    assert (settings.relay.security, settings.mail.email_on_uncertain) == ("starttls", "fail")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_password_may_go_in_the_clear_to_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Loopback is the one place where plain with credentials is allowed."""
    values = {"EMAIL": "me", "APP_PASSWORD": "hunter2", "EMAIL_SECURITY": "plain", "EMAIL_HOST": host}
    assert _load(monkeypatch, **values).relay.security == "plain"


def test_a_token_stands_in_for_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XOAUTH2 signs in with a name and a token file."""
    (tmp_path / "token").write_text("hunter2")
    values = {"EMAIL": "me@example.org", "EMAIL_AUTH": "XOAUTH2", "EMAIL_TOKEN_FILE": "token"}
    settings = _load(monkeypatch, **values)
    assert settings.relay.auth == "xoauth2"
    assert "hunter2" not in repr(settings)


def test_a_directory_is_no_file_to_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is found wrong at the start is not found wrong at each dial instead."""
    for name in ("EMAIL_CA_FILE", "EMAIL_TOKEN_FILE"):
        with monkeypatch.context() as patch, pytest.raises(SettingsError, match=f"^{name}: "):
            _load(patch, **{name: str(tmp_path)})


@pytest.mark.parametrize(
    ("host", "address"),
    [("", "127.0.0.1:40700"), ("::1", "[::1]:40700"), ("[::1]", "[::1]:40700"), ("unix:/run/x", "unix:/run/x")],
)
def test_where_it_listens(monkeypatch: pytest.MonkeyPatch, host: str, address: str) -> None:
    """Loopback or a Unix socket without more ado."""
    assert _load(monkeypatch, HOST=host).server.address == address


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are resolved without a network: here.example is one, and nothing else is."""

    def resolve(host: str, port: None) -> list[str]:
        assert port is None
        if host == "here.example":
            return ["an address"]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("anonymous", ["false", "true"])
@pytest.mark.parametrize("host", ["nonsense", "127.0.0.1:40700", "a\nb", "[::1]:40700", "http://here.example"])
def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch, host: str, anonymous: str) -> None:
    """What is no address, and no name that can be resolved, is told as that, also where strangers are welcome."""
    with pytest.raises(SettingsError) as caught:
        _load(monkeypatch, HOST=host, ALLOW_ANONYMOUS=anonymous)
    what = "is neither an IP address, nor unix:PATH, nor a name that can be resolved here"
    assert caught.value.problems == (f"HOST: {host!r} is wrong: {what}",)


@pytest.mark.usefixtures("_names")
def test_a_name_to_listen_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that can be resolved is an address like others: strangers may reach it."""
    assert _load(monkeypatch, HOST="here.example", ALLOW_ANONYMOUS="true").server.address == "here.example:40700"
    with pytest.raises(SettingsError, match=r"HOST: here\.example can be reached by strangers"):
        _load(monkeypatch, HOST="here.example", ALLOW_ANONYMOUS="false")


def test_strangers_only_if_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other address only with ALLOW_ANONYMOUS."""
    assert _load(monkeypatch, HOST="0.0.0.0", ALLOW_ANONYMOUS="true").server.address == "0.0.0.0:40700"


def test_no_repr_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the whole nor a section."""
    settings = _load(monkeypatch, EMAIL="me@example.org", APP_PASSWORD="hunter2", OTP_KEYS=f"k1:{KEY}")
    sections = (settings.relay, settings.otp)
    for shown in (repr(settings), *map(repr, sections), *map(str, sections), settings.otp.model_dump_json()):
        assert "hunter2" not in shown
        assert KEY not in shown
    assert settings.otp.derivation_keys == {"k1": b"hunter2-hunter2-hunter2-hunter2-"}


def test_sections_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().server.port = 1


def test_keys_keep_their_order() -> None:
    """The first one issues."""
    other = base64.b64encode(bytes(32)).decode()
    assert list(parse_keys(f" new:{other} , old:{KEY}, ")) == ["new", "old"]
    assert parse_keys("") == {}


def test_allowed_senders_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and domains, in any case, apart by commas."""
    allowed = _load(monkeypatch, EMAIL_FROM_ALLOWED="A@Example.org, @Shop.example,,").mail.email_from_allowed
    assert allowed == ("a@example.org", "@shop.example")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "unix:/run/x")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "127.0.0.1.nip.io", "")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:  # noqa: FBT001
    """Only what can't be reached from another machine."""
    assert is_loopback(host) is loopback
