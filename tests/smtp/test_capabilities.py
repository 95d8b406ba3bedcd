"""The capabilities that a relay announces, and which mails they exclude."""

from dataclasses import replace

import pytest

from otpmail.model import AsciiHead, Envelope
from otpmail.smtp.capabilities import Capabilities


@pytest.mark.parametrize(
    ("extensions", "size"),
    [
        ({}, None),
        ({"SIZE": ""}, 0),
        ({"SIZE": "0"}, 0),
        ({"SIZE": " 1000 "}, 1000),
        ({"SIZE": "many"}, 0),
        ({"SIZE": "9" * 5000}, 0),
    ],
)
def test_size(extensions: dict[str, str], size: int | None) -> None:
    """The largest mail, 0 for no fixed bound (RFC 1870), None when not announced; a malformed size is no bound."""
    assert Capabilities(extensions).size == size


@pytest.mark.parametrize(
    ("parameters", "mail_max", "rcpt_max"),
    [
        ("MAILMAX=1000 RCPTMAX=50", 1000, 50),
        ("RCPTDOMAINMAX=1 mailmax=20", 20, None),
        ("MAILMAX=0 RCPTMAX=", None, None),
        ("MAILMAX=1000000 RCPTMAX=-1", None, None),
        ("MAILMAX RCPTMAX=1x", None, None),
        ("", None, None),
    ],
)
def test_limits(parameters: str, mail_max: int | None, rcpt_max: int | None) -> None:
    """MAILMAX and RCPTMAX of RFC 9422, from 1 to 999999; a malformed or unknown limit is ignored."""
    capabilities = Capabilities({"LIMITS": parameters})
    assert (capabilities.mail_max, capabilities.rcpt_max) == (mail_max, rcpt_max)


@pytest.mark.parametrize(
    ("extensions", "octets", "smtputf8", "code"),
    [
        ({}, 5000, False, None),
        ({"SIZE": "1000"}, 1000, False, None),
        ({"SIZE": "1000"}, 1001, False, 552),
        ({"SIZE": "0"}, 5000, False, None),
        ({}, 10, True, 550),
        ({"SMTPUTF8": ""}, 10, True, None),
        ({"SMTPUTF8": "", "SIZE": "5"}, 10, True, 552),
    ],
)
def test_rejected_mails(extensions: dict[str, str], octets: int, smtputf8: bool, code: int | None) -> None:  # noqa: FBT001
    """A mail too large, or one that needs SMTPUTF8 where it is not announced, is rejected with a reason."""
    envelope = Envelope("service@example.org", ("ada@example.org",), b"x" * octets, smtputf8)
    results = Capabilities(extensions).rejects(envelope)
    assert [result.code for result in results] == ([code] if code else [])
    assert all(result.enhanced_code.startswith("5.") and result.reply for result in results)


@pytest.mark.parametrize(("name", "code"), [("", None), ("b:587", None), ("a:25", 550)])
def test_a_mail_for_one_relay_alone(name: str, code: int | None) -> None:
    """A mail that names a relay is rejected by any other, with that name."""
    envelope = Envelope("service@example.org", ("ada@example.org",), b"x", relay=name)
    results = Capabilities({}, "b:587").rejects(envelope)
    assert [result.code for result in results] == ([code] if code else [])
    assert all("for the relay a:25 alone" in result.reply for result in results)
    assert envelope.only(()).relay == envelope.with_code("1").relay == envelope.without_content().relay == name


PEOPLE = ("ada@example.org", "j\u00fcrgen@example.org", '"bob b"@example.org')
NO_HEAD = Envelope("service@example.org", PEOPLE, b"To: x\r\n\r\n", smtputf8=True)
WITH_HEAD = replace(NO_HEAD, content="To: j\u00fcrgen\r\n\r\nHello".encode(), ascii_head=AsciiHead(b"To: x", 11))


def _rejected(envelope: Envelope, **extensions: str) -> tuple[str, ...]:
    capabilities = Capabilities(extensions)
    return tuple(result.address for result in capabilities.rejects(capabilities.adapted(envelope)))


@pytest.mark.parametrize(
    ("envelope", "rejected"),
    [
        (WITH_HEAD, PEOPLE[1:2]),
        (replace(WITH_HEAD, recipients=(PEOPLE[0], PEOPLE[2])), ()),
        (replace(WITH_HEAD, recipients=PEOPLE[1:2]), PEOPLE[1:2]),
        (NO_HEAD, PEOPLE),
        (replace(NO_HEAD, smtputf8=False), PEOPLE[1:2]),
        (replace(NO_HEAD, sender="j\u00fcrgen@x.org", smtputf8=False), PEOPLE),
    ],
)
def test_a_recipient_who_needs_smtputf8_is_refused_alone(envelope: Envelope, rejected: tuple[str, ...]) -> None:
    """Only recipients who need it are refused where the mail can go without SMTPUTF8 to others, else all."""
    assert _rejected(envelope) == rejected
    if envelope.smtputf8:
        assert _rejected(envelope, **{"SMTPUTF8": "", "8BITMIME": ""}) == ()
        assert Capabilities({"SMTPUTF8": ""}).adapted(envelope) is envelope
        eight_bit = replace(envelope, content="To: j\u00fcrgen@x.org\r\n\r\n".encode())
        assert _rejected(eight_bit, SMTPUTF8="") == ()  # RFC 6531, 3.1: it takes 8BITMIME too


def test_a_mail_without_smtputf8_begins_with_its_head_in_ascii() -> None:
    """For a relay without SMTPUTF8 the mail has other first octets, and no other change."""
    adapted = Capabilities({}).adapted(WITH_HEAD)
    assert adapted == replace(WITH_HEAD, content=b"To: x\r\n\r\nHello", smtputf8=False, ascii_head=None)


@pytest.mark.parametrize(
    ("address", "is_safe"),
    [
        *(("", True), ("a@x.org", True), ('"a b"@x.org', True), ('"a \\" b"@x.org', True), ("a", True)),
        *(
            ("a b@x.org", False),
            ('"a" b@x.org', False),
            ('"a b"', False),
            ('"a b@x.org', False),
            ('"a\r\n"@x.org', False),
        ),
        *(
            ("a@x.org>", False),
            ('"a>"@x.org', False),
            ('"a\\>"@x.org', False),
            ("a\x00@x.org", False),
            ("\ud800@x.org", False),
        ),
        *(('a"b c"@x.org', False), ('"a b"@x.org SIZE=1', False), ('"a b"@x "y"', False)),
    ],
)
def test_no_address_ends_a_command(address: str, is_safe: bool) -> None:  # noqa: FBT001
    """An address with a character that could end its path or command is refused alone; a blank may stand in quotes."""
    for_both = Envelope("service@example.org", ("b@x.org", address), b"\r\n")
    assert _rejected(for_both) == (() if is_safe else (address,))
    from_it = Envelope(address, ("b@x.org", "c@x.org"), b"\r\n")
    assert _rejected(from_it) == (() if is_safe else ("b@x.org", "c@x.org"))


@pytest.mark.parametrize(
    ("sender", "head", "field"),
    [
        ("a@x.org", "From: jürgen@x.org\r\nTo: b@x.org", "from is"),
        ("a@x.org", "From: a@x.org\r\nSender: jürgen@x.org\r\nTo: b@x.org", "sender is"),
        ("a@x.org", "From: a@x.org\r\nReply-To: c@x.org,\r\n J <jürgen@x.org>\r\nSubject: s", "reply_to is"),
        ("jürgen@x.org", "From: a@x.org", "return_path is"),
        ("a@x.org", "From: a@x.org\r\nTo: jürgen@x.org", "the relay does not take"),
    ],
)
def test_the_field_that_needs_smtputf8_is_named(sender: str, head: str, field: str) -> None:
    """The reply for all recipients of a mail that can't go without SMTPUTF8 says which field is the reason."""
    envelope = Envelope(sender, ("b@x.org",), f"{head}\r\n\r\nReply-To: jürgen@x.org\r\n".encode(), smtputf8=True)
    (result,) = Capabilities({}).rejects(envelope)
    assert (result.code, result.enhanced_code) == (550, "5.6.7")
    assert result.reply.startswith(field)
