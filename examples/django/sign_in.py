"""A sign-in without a password by Django, in one file, with a form on http://localhost:8000.

`pip install PATH_OF_CLONE django && python sign_in.py runserver`, beside `otpmail dev`.
"""

import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import path
from otpmail.client import Error, SyncClient

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
PAGE = """<!doctype html><title>Sign in</title><p role="status">{status}</p>
<form method="post"><input type="hidden" name="csrfmiddlewaretoken" value="{token}">
<label>{label} <input name="{name}" autocomplete="{autocomplete}" required></label> <button>Go on</button></form>"""


def page(request: HttpRequest, *, wants_code: bool, status: str = "", code: int = 200) -> HttpResponse:
    label, name, autocomplete = ("Code", "code", "one-time-code") if wants_code else ("E-mail", "email", "email")
    form = {"label": label, "name": name, "autocomplete": autocomplete, "token": get_token(request)}
    return HttpResponse(PAGE.format(status=status, **form), status=code)


def sign_in(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return page(request, wants_code=False)
    try:
        if email := request.POST.get("email"):
            sent = otpmail.send_code(email, session=_session(request))
            request.session["pending"] = [email, sent.challenge_id]
            return page(
                request, wants_code=True, status=f"A code is in your mail, with the reference {sent.reference}."
            )
        email, challenge = request.session["pending"]
        otpmail.check_code(email, request.POST["code"], challenge_id=challenge, session=_session(request))
    except Error as error:
        return page(
            request, wants_code="pending" in request.session, status=f"{type(error).__name__}", code=error.http_status
        )
    del request.session["pending"]
    request.session["email"] = email
    return HttpResponse(f"Signed in as {email}")


def _session(request: HttpRequest) -> str:
    """Return a name for this browser's sign-in: a code of one session is wrong for another."""
    name: str = request.session.setdefault("name", get_token(request)[:32])
    return name


urlpatterns = [path("", sign_in)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
