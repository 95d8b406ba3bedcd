"""The rules of every section: names, defaults, and how a wrong value is reported without showing a secret."""

import base64
from pathlib import Path

import pytest

from otpmail.errors import SettingsError
from otpmail.settings import Settings, read_sources
from settings.conftest import Load, Problems

KEY = base64.b64encode(b"hunter2-hunter2-hunter2-hunter2-").decode()


def test_the_originals_defaults() -> None:
    """The names and defaults of the server that this one replaces stay."""
    settings = Settings.load()
    assert settings.server.address == "127.0.0.1:40700"
    assert (settings.relay.host, settings.relay.port, settings.relay.security) == ("smtp.gmail.com", 465, "tls")
    assert settings.mail.workers == 5
    assert (settings.otp.lifespan(compat=True), settings.otp.cleanup_seconds) == (120, 180)
    assert (settings.otp.digits, settings.otp.attempts, settings.otp.failures_per_hour) == (6, 5, 10)
    assert (settings.otp.resend_seconds, settings.otp.return_code) == (30, False)
    assert (settings.mail.queue_size, settings.mail.mail_ttl, settings.server.drain_seconds) == (10_000, 86_400, 25)
    assert settings.mail.mail_max_bytes == 10 << 20


def test_the_originals_names(load: Load) -> None:
    """Each variable of the original is read into its section."""
    settings = load(
        PORT="1234",
        WORKERS="7",
        OTP_CLEANUP_SECONDS="8",
        OTP_LIFESPAN_SECONDS="9",
        EMAIL_HOST="mail.example.org",
        EMAIL_PORT="2525",
        EMAIL="me@example.org",
        APP_PASSWORD="hunter2",
        EMAIL_FROM="",
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
    ({"EMAIL_FROM": ""}, "EMAIL"),
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
def test_a_wrong_setting_is_one_line_that_names_it(load: Load, values: dict[str, str], name: str) -> None:
    """The error is one line, which opens with the setting to change and shows no secret."""
    with pytest.raises(SettingsError) as caught:
        load(**values)
    (line,) = caught.value.problems
    assert line.startswith(f"{name}: ")
    assert line.isprintable()
    for secret in ("hunter2", "hünter2", KEY, base64.b64encode(b"hunter2").decode().rstrip("=")):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
    assert caught.value.__cause__ is None


_TIME = "a time such as 90s, 5m or 1h30m, or a number of seconds"


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("PORT", "abc", "a whole number from 0 to 65535"),
        ("PORT", "1.5", "a whole number from 0 to 65535"),
        ("PORT", "70000", "a whole number from 0 to 65535"),
        ("HTTP_PORT", "none", "a whole number from 0 to 65535"),
        ("QUEUE_SIZE", "0", "a whole number, 1 or more"),
        ("DRAIN_SECONDS", "-1", f"{_TIME} from 0 to 316224000"),
        ("EMAIL_RATE", "10/s", "a number above 0"),
        ("EMAIL_TIMEOUT", "30 seconds", f"{_TIME} above 0 and at most 316224000"),
        ("EMAIL_TIMEOUT", "nan", f"{_TIME} above 0 and at most 316224000"),
        ("OTP_LIFESPAN_SECONDS", "1e9", f"{_TIME} above 0 and at most 86400"),
        ("OTP_RESEND_SECONDS", "25h", f"{_TIME} from 0 to 86400"),
        ("GRPC_REFLECTION", "perhaps", "true or false"),
        ("EMAIL_SECURITY", "ssl", "'tls', 'starttls' or 'plain'"),
        ("EMAIL_AUTH", "basic", "'plain', 'login', 'cram-md5', 'xoauth2', 'oauthbearer' or 'external'"),
    ],
)
def test_the_values_that_are_allowed_are_reported(problems: Problems, name: str, value: str, may_be: str) -> None:
    """The line shows the setting, the value, and all that it may be, in words of our own."""
    assert problems(**{name: value}) == (f"{name}: {value!r} is wrong: must be {may_be}",)


def test_words_count_in_any_case(load: Load) -> None:
    """A setting that is one of a few words may be written in capitals."""
    words = {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "Json", "EMAIL_SECURITY": "STARTTLS", "EMAIL_ON_UNCERTAIN": "Fail"}
    settings = load(**words)
    assert (settings.server.log_level, settings.server.log_format) == ("debug", "json")
    assert (settings.relay.security, settings.mail.email_on_uncertain) == ("starttls", "fail")


def test_no_repr_shows_a_secret(load: Load, tmp_path: Path) -> None:
    """No repr of the settings, a section or the sources shows a password or a key."""
    (tmp_path / ".env").write_text(f"OTP_KEYS=k1:{KEY}\n")
    (tmp_path / "APP_PASSWORD").write_text("hunter2")
    settings = load(EMAIL="me@example.org", APP_PASSWORD="hunter2", SECRETS_DIR=str(tmp_path))
    sections = (settings.relay, settings.otp)
    sources = read_sources()
    read = (sources, sources.env_file, sources.secrets_dir)
    for shown in (repr(settings), *map(repr, (*sections, *read)), *map(str, sections), settings.otp.model_dump_json()):
        assert "hunter2" not in shown
        assert KEY not in shown


def test_sections_are_frozen() -> None:
    """No setting can be changed after the start."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().server.port = 1
