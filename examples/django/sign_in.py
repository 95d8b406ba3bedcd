"""A sign-in without a password by Django, in one file, with a form on http://localhost:8000.

`pip install PATH_OF_CLONE django && python sign_in.py runserver`, beside `otpmail dev`.
"""

import math
import secrets
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.utils.html import format_html
from otpmail.client import (
    Error,
    InvalidRequest,
    NoLiveCode,
    Refused,
    Suppressed,
    SyncClient,
    TooManyAttempts,
    WrongCode,
)

if not settings.configured:
    settings.configure(
        DEBUG=True,
        SECRET_KEY="only for this example",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
    )
    django.setup()

otpmail = SyncClient()
DEVICE_SECONDS = 180 * 24 * 3600  # as long as a device token is good
WORDS: dict[type[Error], str] = {
    NoLiveCode: "This code is no longer valid. Ask for a new one.",
    TooManyAttempts: "Too many wrong codes. Ask for a new one.",
    Refused: "No mail reaches this address. Is it right?",
    Suppressed: "No mail reaches this address. Is it right?",
}
PAGE = """<!doctype html><title>Sign in</title><p role="status">{status}</p>
<form method="post"><input type="hidden" name="csrfmiddlewaretoken" value="{token}">
<label>{label} <input name="{name}" autocomplete="{autocomplete}" required></label> <button>Go on</button></form>"""


def page(request: HttpRequest, *, wants_code: bool, status: str = "", code: int = 200) -> HttpResponse:
    label, name, autocomplete = ("Code", "code", "one-time-code") if wants_code else ("E-mail", "email", "email")
    form = {"label": label, "name": name, "autocomplete": autocomplete, "token": get_token(request)}
    return HttpResponse(format_html(PAGE, status=status, **form), status=code)


def sign_in(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return page(request, wants_code=False)
    try:
        if "email" in request.POST:
            return _send(request, request.POST["email"])
        if "pending" not in request.session:  # Back, and a code once more that was right
            return page(request, wants_code=False, status="Ask for a code first.", code=409)
        return _check(request, request.POST.get("code", ""))
    except Error as error:
        same_form = "code" in request.POST and isinstance(error, WrongCode | InvalidRequest)
        return page(request, wants_code=same_form, status=_words(error), code=error.http_status)


def _send(request: HttpRequest, email: str) -> HttpResponse:
    sent = otpmail.send_code(email, session=_session(request), device_token=_device(request))
    request.session["pending"] = [email, sent.challenge_id]
    return page(request, wants_code=True, status=f"A code is in your mail, with the reference {sent.reference}.")


def _check(request: HttpRequest, code: str) -> HttpResponse:
    email, challenge = request.session["pending"]
    checked = otpmail.check_code(
        email, code, challenge_id=challenge, session=_session(request), device_token=_device(request)
    )
    del request.session["pending"]
    request.session["email"] = email
    response = HttpResponse(format_html("Signed in as {}", email))
    response.set_signed_cookie(
        "device",
        checked.device_token,
        max_age=DEVICE_SECONDS,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    return response


def _session(request: HttpRequest) -> str:
    """Return a name for this browser's sign-in: a code of one session is wrong for another."""
    name: str = request.session.setdefault("name", secrets.token_urlsafe())
    return name


def _device(request: HttpRequest) -> str:
    """Return what this browser got at an earlier sign-in: mails and wrong codes of strangers count apart from it."""
    token: str = request.get_signed_cookie("device", "", max_age=DEVICE_SECONDS)
    return token


def _words(error: Error) -> str:
    """Say to the person what went wrong, and what to do next."""
    if isinstance(error, WrongCode):
        return f"This code is wrong. Tries left: {error.attempts_left}."
    if isinstance(error, InvalidRequest):
        return f"Look at what you typed: it {error.description}."
    if type(error) in WORDS:
        return WORDS[type(error)]
    if error.retry_after is not None:
        return f"Try again in {math.ceil(error.retry_after)} seconds."
    return "We can't do this now. Try again later."


urlpatterns = [path("", sign_in)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
