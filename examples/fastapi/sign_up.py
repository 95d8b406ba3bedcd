# A sign-up by FastAPI: mails a code, and checks the one that the person typed.
from secrets import token_urlsafe
from fastapi import FastAPI, Request, responses
from otpmail.client import Client, Error

app, otpmail = FastAPI(), Client()  # uvicorn sign_up:app; then POST localhost:8000/sign-up?email=a@b.example


@app.post("/sign-up")
async def sign_up(email: str, session: str = "") -> dict[str, str]:
    session = session or token_urlsafe()  # the page keeps it: a stranger with the same address has another code
    sent = await otpmail.send_code(email, "sign-up", session=session)
    return {"session": session, "challenge": sent.challenge_id, "reference": sent.reference}


@app.post("/sign-up/check")
async def check(email: str, session: str, challenge: str, code: str) -> dict[str, str]:
    await otpmail.check_code(email, code, "sign-up", challenge_id=challenge, session=session)
    return {"signed_up": email}


@app.exception_handler(Error)
async def refuse(_: Request, error: Error) -> responses.JSONResponse:
    about = {name: getattr(error, name, None) for name in ("retry_after", "field", "description")}
    return responses.JSONResponse({"error": type(error).__name__, **about}, error.http_status)
