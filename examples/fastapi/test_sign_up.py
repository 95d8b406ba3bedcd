"""The tests of the sign-up, by the fixture `otpmail` that comes with `pip install 'otpmail[testing]'`.

Until otpmail is released: `pip install 'PATH_OF_CLONE[testing]' fastapi httpx2 && pytest`.
"""

import pytest
from fastapi.testclient import TestClient
from otpmail.testing import Namespace
from sign_up import app

ADA = "ada@example.org"


@pytest.fixture
def browser() -> TestClient:
    return TestClient(app)


def test_a_person_signs_up(browser: TestClient, otpmail: Namespace) -> None:
    sent = browser.post("/sign-up", params={"email": ADA}).json()
    answer = {"email": ADA, "session": sent["session"], "challenge": sent["challenge"], "code": "000000"}
    assert browser.post("/sign-up/check", params=answer).json()["error"] == "WrongCode"
    answer["code"] = otpmail.inbox(ADA).code()
    assert browser.post("/sign-up/check", params=answer).json() == {"signed_up": ADA}
    assert browser.post("/sign-up/check", params=answer).json()["error"] == "NoLiveCode"


@pytest.mark.usefixtures("otpmail")
def test_a_typing_error(browser: TestClient) -> None:
    response = browser.post("/sign-up", params={"email": "nonsense"})
    assert (response.status_code, response.json()["field"]) == (422, "email")
    assert response.json()["description"] == "is not a mailbox address (an email address must have an @-sign)"


def test_a_mailbox_that_is_not_there(browser: TestClient, otpmail: Namespace) -> None:
    with otpmail.fail(550):
        response = browser.post("/sign-up", params={"email": ADA})
    assert (response.status_code, response.json()["error"]) == (422, "Refused")


def test_a_second_code_has_to_wait(browser: TestClient, otpmail: Namespace) -> None:
    sent = browser.post("/sign-up", params={"email": ADA}).json()
    again = {"email": ADA, "session": sent["session"]}
    response = browser.post("/sign-up", params=again)
    assert (response.status_code, response.json()["error"]) == (429, "TooSoon")
    otpmail.clock.advance(response.json()["retry_after"])
    assert browser.post("/sign-up", params=again).json() == sent


def test_a_stranger_uses_up_no_attempt_of_the_owner(browser: TestClient, otpmail: Namespace) -> None:
    owner = browser.post("/sign-up", params={"email": ADA}).json()
    code = otpmail.inbox(ADA).code()
    stranger = browser.post("/sign-up", params={"email": ADA}).json()
    assert stranger["challenge"] != owner["challenge"]
    guess = {"email": ADA, "session": stranger["session"], "challenge": stranger["challenge"], "code": "000000"}
    errors = [browser.post("/sign-up/check", params=guess).json()["error"] for _ in range(6)]
    assert errors == ["WrongCode"] * 5 + ["TooManyAttempts"]
    answer = {"email": ADA, "session": owner["session"], "challenge": owner["challenge"], "code": code}
    assert browser.post("/sign-up/check", params=answer).json() == {"signed_up": ADA}
