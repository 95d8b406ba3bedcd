"""The tests of the sign-in, by Django's own client and the fixture `otpmail`.

Until otpmail is released: `pip install 'PATH_OF_CLONE[testing]' django && pytest`.
"""

import pytest
import sign_in  # noqa: F401 -- it configures Django
from django.test import Client
from otpmail.testing import Namespace

ADA = "ada@example.org"


def test_a_person_signs_in(otpmail: Namespace) -> None:
    browser = Client()
    assert b'name="email"' in browser.get("/").content
    asked = browser.post("/", {"email": ADA})
    assert b"one-time-code" in asked.content
    wrong = browser.post("/", {"code": "000000"})
    assert (wrong.status_code, b"one-time-code" in wrong.content) == (422, True)
    assert b"This code is wrong. Tries left: 4." in wrong.content
    signed_in = browser.post("/", {"code": otpmail.inbox(ADA).code()})
    assert signed_in.content == b"Signed in as ada@example.org"


def test_a_code_that_is_sent_once_more(otpmail: Namespace) -> None:
    browser = Client()
    browser.post("/", {"email": ADA})
    code = otpmail.inbox(ADA).code()
    assert browser.post("/", {"code": code}).status_code == 200
    again = browser.post("/", {"code": code})  # Back, and the form once more
    assert (again.status_code, b"Ask for a code first." in again.content) == (409, True)
    assert b'name="email"' in again.content


def test_a_code_of_another_browser_is_wrong(otpmail: Namespace) -> None:
    owner, stranger = Client(), Client()
    owner.post("/", {"email": ADA})
    code = otpmail.inbox(ADA).code()
    stranger.post("/", {"email": ADA})
    assert stranger.post("/", {"code": code}).status_code == 422
    assert owner.post("/", {"code": code}).status_code == 200


def test_strangers_lock_no_browser_that_has_signed_in(otpmail: Namespace) -> None:
    owner = Client()
    owner.post("/", {"email": ADA})
    owner.post("/", {"code": otpmail.inbox(ADA).code()})
    device = owner.cookies["device"]
    assert (device["httponly"], device["samesite"], device["max-age"]) == (True, "Lax", 180 * 24 * 3600)
    for _ in range(2):  # as many wrong codes as strangers have in an hour
        stranger = Client()
        stranger.post("/", {"email": ADA})
        for _ in range(5):
            assert stranger.post("/", {"code": "000000"}).status_code == 422
        otpmail.inbox(ADA).code()
    otpmail.clock.advance(minutes=1)
    assert owner.post("/", {"email": ADA}).status_code == 200
    code = otpmail.inbox(ADA).code()
    assert code.isdigit()  # and not a long one, as strangers get now
    assert owner.post("/", {"code": code}).content == b"Signed in as ada@example.org"


@pytest.mark.usefixtures("otpmail")
def test_a_typing_error() -> None:
    answer = Client().post("/", {"email": "nonsense"})
    assert (answer.status_code, b'name="email"' in answer.content) == (422, True)
    words = b"Look at what you typed: it is not a mailbox address (an email address must have an @-sign)."
    assert words in answer.content


def test_an_address_with_markup(otpmail: Namespace) -> None:
    browser, address = Client(), "ada&bob@example.org"
    browser.post("/", {"email": address})
    signed_in = browser.post("/", {"code": otpmail.inbox(address).code()})
    assert signed_in.content == b"Signed in as ada&amp;bob@example.org"


def test_a_code_that_has_expired(otpmail: Namespace) -> None:
    browser = Client()
    browser.post("/", {"email": ADA})
    otpmail.clock.advance(minutes=10)
    late = browser.post("/", {"code": otpmail.inbox(ADA).code()})
    assert (late.status_code, b'name="email"' in late.content) == (422, True)
    assert b"This code is no longer valid. Ask for a new one." in late.content


def test_a_code_without_attempts_left(otpmail: Namespace) -> None:
    browser = Client()
    browser.post("/", {"email": ADA})
    for _ in range(5):
        browser.post("/", {"code": "000000"})
    spent = browser.post("/", {"code": otpmail.inbox(ADA).code()})
    assert (spent.status_code, b'name="email"' in spent.content) == (429, True)
    assert b"Too many wrong codes. Ask for a new one." in spent.content
    otpmail.clock.advance(minutes=1)
    browser.post("/", {"email": ADA})
    assert browser.post("/", {"code": otpmail.inbox(ADA).code()}).status_code == 200


def test_a_second_code_has_to_wait(otpmail: Namespace) -> None:
    browser = Client()
    browser.post("/", {"email": ADA})
    early = browser.post("/", {"email": ADA})
    assert (early.status_code, b"Try again in " in early.content) == (429, True)
    assert browser.post("/", {"code": otpmail.inbox(ADA).code()}).status_code == 200


def test_a_mailbox_that_is_not_there(otpmail: Namespace) -> None:
    with otpmail.fail(550):
        refused = Client().post("/", {"email": ADA})
    assert (refused.status_code, b"No mail reaches this address." in refused.content) == (422, True)
