"""The tests of the sign-in, by Django's own client and the fixture `otpmail`.

Until otpmail is released: `pip install 'PATH_OF_CLONE[testing]' django && pytest`.
"""

import sign_in  # noqa: F401 -- it configures Django
from django.test import Client
from otpmail.testing import Namespace

ADA = "ada@example.org"


def test_a_person_signs_in(otpmail: Namespace) -> None:
    browser = Client()
    assert b'name="email"' in browser.get("/").content
    asked = browser.post("/", {"email": ADA})
    assert b"one-time-code" in asked.content
    assert browser.post("/", {"code": "000000"}).status_code == 422
    signed_in = browser.post("/", {"code": otpmail.inbox(ADA).code()})
    assert signed_in.content == b"Signed in as ada@example.org"


def test_a_code_of_another_browser_is_wrong(otpmail: Namespace) -> None:
    owner, stranger = Client(), Client()
    owner.post("/", {"email": ADA})
    code = otpmail.inbox(ADA).code()
    stranger.post("/", {"email": ADA})
    assert stranger.post("/", {"code": code}).status_code == 422
    assert owner.post("/", {"code": code}).status_code == 200


def test_a_mailbox_that_is_not_there(otpmail: Namespace) -> None:
    with otpmail.fail(550):
        refused = Client().post("/", {"email": ADA})
    assert (refused.status_code, b"Refused" in refused.content) == (422, True)
