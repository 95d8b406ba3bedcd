"""The settings of mails: who may be named as their sender."""

import pytest

from settings.conftest import Load, Problems


def test_allowed_senders_are_a_list(load: Load) -> None:
    """EMAIL_FROM_ALLOWED holds addresses and domains, in any case, with commas between."""
    allowed = load(EMAIL_FROM_ALLOWED="A@Example.org, @Shop.example,,").mail.email_from_allowed
    assert allowed == ("a@example.org", "@shop.example")


@pytest.mark.parametrize("entry", ["nobody", "@", "@a b", "a@b@c", "*@shop.example", "@*.shop.example"])
def test_an_allowed_sender_that_is_wrong(problems: Problems, entry: str) -> None:
    """A wrong entry of the list is named, and once, also where it stands there alone."""
    line = f"EMAIL_FROM_ALLOWED: {entry!r} is neither an address nor an @ with a domain"
    assert problems(EMAIL_FROM_ALLOWED=f"a@example.org,{entry}") == (line,)
    assert problems(EMAIL_FROM_ALLOWED=entry) == (line,)


def test_the_name_to_sign_in_with_is_the_sender(load: Load, problems: Problems) -> None:
    """EMAIL stands in for EMAIL_FROM where it is a mailbox."""
    assert load(EMAIL_FROM="", EMAIL="me@example.org", APP_PASSWORD="hunter2").mail.email_from == "me@example.org"
    assert problems(EMAIL="me") == ("EMAIL_FROM: is needed, since EMAIL is not a mailbox address to send from",)
    (line,) = problems(EMAIL="", APP_PASSWORD="")
    assert line.startswith("EMAIL: is not set, and no EMAIL_FROM either; set EMAIL and APP_PASSWORD to sign in to ")
    assert line.endswith(", or EMAIL_HOST and EMAIL_FROM for a relay without sign-in")


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 86_400.0),
        ({"MAIL_TTL": "2d"}, 172_800.0),
        ({"MAIL_REQUEST_SECONDS": "3h", "MAIL_TTL": "1h"}, 10_800.0),
        ({"MAIL_REQUEST_SECONDS": "30d"}, 2_592_000.0),
    ],
)
def test_how_long_request_ids_are_kept(load: Load, settings: dict[str, str], seconds: float) -> None:
    """A request id is kept for a day, or for as long as it is set, and not less than its mail may be retried."""
    assert load(**settings).mail.request_seconds == seconds


@pytest.mark.parametrize(("value", "ttl"), [("59", "10"), ("31d", "10"), ("60", "61"), ("23h", "")])
def test_request_ids_that_are_kept_too_briefly_or_too_long(problems: Problems, value: str, ttl: str) -> None:
    """MAIL_REQUEST_SECONDS is a minute to thirty days, and not less than MAIL_TTL."""
    [line] = problems(MAIL_REQUEST_SECONDS=value, **({"MAIL_TTL": ttl} if ttl else {}))
    assert line.startswith("MAIL_REQUEST_SECONDS: ")


@pytest.mark.parametrize("value", ["0", "10000001"])
def test_the_count_of_request_ids_has_bounds(problems: Problems, value: str) -> None:
    """MAIL_REQUEST_COUNT is from 1 to ten million."""
    [line] = problems(MAIL_REQUEST_COUNT=value)
    assert line.startswith("MAIL_REQUEST_COUNT: ")


MIB = 1 << 20


@pytest.mark.parametrize(
    ("memory", "mail", "needed"),
    [("16", str(10 * MIB), 44), ("43", str(10 * MIB), 44), ("500", str(150 * MIB), 604), ("16", str(3 * MIB + 1), 17)],
)
def test_a_mail_that_the_memory_does_not_hold(problems: Problems, memory: str, mail: str, needed: int) -> None:
    """A memory that can't hold the largest mail while it is read is an error that names both settings and the need."""
    [line] = problems(MEMORY_MAX_MB=memory, MAIL_MAX_BYTES=mail)
    assert line.startswith(f"MEMORY_MAX_MB: {memory} MiB can't hold a mail of MAIL_MAX_BYTES ({mail})")
    assert f"set MEMORY_MAX_MB to {needed} or more" in line


@pytest.mark.parametrize(("memory", "mail"), [("44", 10 * MIB), ("604", 150 * MIB), ("16", 3 * MIB), ("16", 1024)])
def test_the_least_memory_for_a_mail(load: Load, memory: str, mail: int) -> None:
    """The memory that an error asks for is enough."""
    assert load(MEMORY_MAX_MB=memory, MAIL_MAX_BYTES=str(mail)).mail.most_request_octets == mail + MIB


def test_a_small_container(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MEMORY_MAX_MB is not set, the error says how much of the container's memory there is."""
    monkeypatch.setattr("otpmail.settings.mail.available_memory", lambda: 64 * MIB)
    [line] = problems()
    assert line.startswith("MEMORY_MAX_MB: is not set, and half of the memory that this process may use, 32 MiB, can't")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Idempotency Key", "is not the name of a header field"),
        ("X:Y", "is not the name of a header field"),
        ("X" * 65, "is not the name of a header field"),
        ("Message-ID", "is the name of a header field that otpmail or a relay writes"),
        ("content-id", "is the name of a header field that otpmail or a relay writes"),
    ],
)
def test_a_header_against_repeats(problems: Problems, name: str, fault: str) -> None:
    """EMAIL_DEDUP_HEADER is a header name (RFC 5322, 3.6.8), and none that has a meaning of its own."""
    assert problems(EMAIL_DEDUP_HEADER=name) == (f"EMAIL_DEDUP_HEADER: {name!r} {fault}",)
