"""Signing in, by every mechanism and against relays that are odd about it."""

from pathlib import Path
from typing import Any

import pytest

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.relays.dial import SignedIn
from relay import Certificates, Faults, Relay
from relays.dials import dial_port, failing_handshake


async def _sign_in(relay: Relay, **values: str) -> SignedIn:
    usual = {"EMAIL_SECURITY": relay.faults.security, "EMAIL": "user", "APP_PASSWORD": "secret"}
    return await dial_port(relay.port, **usual | values)


def _auths(relay: Relay) -> list[str]:
    return [command.line for command in relay.commands if command.line.startswith("AUTH")]


@pytest.mark.parametrize("keyword", ["AUTH ", "AUTH\t", "AUTH="])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_password(keyword: str, mechanism: str) -> None:
    """The one mechanism that is announced is used, whatever stands behind AUTH."""
    async with Relay(Faults(auth=(mechanism,), auth_keyword=keyword)) as relay:
        await _sign_in(relay)
    assert [line.split()[1] for line in _auths(relay)] == [mechanism]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
async def test_a_relay_that_ignores_initial_responses(mechanism: str, tmp_path: Path) -> None:
    """A relay that answers AUTH with an empty challenge gets the response then (RFC 4954, 4)."""
    (tmp_path / "token").write_text("token")
    by_token = mechanism in {"XOAUTH2", "OAUTHBEARER"}
    values = {"EMAIL_TOKEN_FILE": str(tmp_path / "token"), "APP_PASSWORD": ""} if by_token else {}
    async with Relay(Faults(auth=(mechanism,), ignores_initial_responses=True)) as relay:
        await _sign_in(relay, **values)
    assert [line.split()[1] for line in _auths(relay)] == [mechanism]


async def test_login_has_no_initial_response() -> None:
    """LOGIN waits for each prompt: a relay that ignores an initial response would take the password for the user."""
    async with Relay(Faults(auth=("LOGIN",), login_prompts=("User Name\0", "Password\0"))) as relay:
        await _sign_in(relay)
    assert _auths(relay) == ["AUTH LOGIN"]


async def test_login_that_is_asked_for_something_else() -> None:
    """An exchange is cancelled, and the password not sent, where the relay asks for what nobody has."""
    async with Relay(Faults(auth=("LOGIN",), login_prompts=("Username:", "Realm:"))) as relay:
        with pytest.raises(SignInRefused, match=r"the relay asks for what LOGIN does not have: Realm:$"):
            await _sign_in(relay)


@pytest.mark.parametrize(
    "refusal", ["501 5.5.4 no", "504 5.7.4 Unrecognized authentication type", "553 no", "535 5.7.4 x"]
)
async def test_a_refused_mechanism(refusal: str) -> None:
    """A mechanism that is announced and refused is not the end where another one is offered."""
    async with Relay(Faults(refuse_mechanisms={"PLAIN": refusal})) as relay:
        await _sign_in(relay)
    assert [line.split()[1] for line in _auths(relay)] == ["PLAIN", "LOGIN"]


async def test_every_mechanism_is_refused() -> None:
    """The error has what the relay said to each mechanism."""
    refusals = {"PLAIN": "504 5.5.4 no PLAIN", "LOGIN": "501 5.5.2 no LOGIN"}
    async with Relay(Faults(refuse_mechanisms=refusals)) as relay:
        with pytest.raises(SignInRefused) as caught:
            await _sign_in(relay)
    said = "PLAIN: 504 5.5.4 no PLAIN; LOGIN: 501 5.5.2 no LOGIN"
    assert str(caught.value) == f"the relay refused to sign user in: {said}"


async def test_a_relay_that_closes_over_a_mechanism() -> None:
    """A relay that closes after it has refused a mechanism is quoted, in place of words about a lost connection."""
    refusals = {"PLAIN": "504 5.7.4 Unrecognized authentication type"}
    async with Relay(Faults(refuse_mechanisms=refusals, cut_after_reply="AUTH")) as relay:
        with pytest.raises(SignInRefused, match=r"504 5\.7\.4 Unrecognized authentication type$"):
            await _sign_in(relay)


async def test_a_relay_that_closes_without_a_reply() -> None:
    """The error names the mechanism over which the relay closed; the password may be right, so it is no refusal."""
    async with Relay(Faults(cut_before_reply="AUTH")) as relay:
        with pytest.raises(ConnectFailed, match=r"closed the connection over AUTH PLAIN, without a reply$") as caught:
            await _sign_in(relay)
    assert not isinstance(caught.value, SignInRefused)


@pytest.mark.parametrize("refusal", ["535 5.7.8 bad credentials", "534 5.7.9 application-specific password required"])
async def test_a_refused_password(refusal: str) -> None:
    """A refused password is the end: providers count failed sign-ins."""
    async with Relay(Faults(auth=("PLAIN", "LOGIN", "CRAM-MD5"), refuse_auth=refusal)) as relay:
        with pytest.raises(SignInRefused, match=rf"^the relay refused to sign user in: .*{refusal[:10]}"):
            await _sign_in(relay)
    assert len(_auths(relay)) == 1


async def test_a_mechanism_that_is_asked_for() -> None:
    """EMAIL_AUTH is used alone: no other mechanism is tried after it."""
    async with Relay(Faults(refuse_mechanisms={"LOGIN": "504 5.5.4 no"})) as relay:
        with pytest.raises(SignInRefused):
            await _sign_in(relay, EMAIL_AUTH="login")
    assert [line.split()[1] for line in _auths(relay)] == ["LOGIN"]


@pytest.mark.parametrize("refusal", ["421 4.3.0 busy", "454 4.7.0 temporary", "432 4.7.12 transition"])
async def test_a_sign_in_that_fails_for_now(refusal: str) -> None:
    """A 4yz to the sign-in is a failed dial, and no refused password."""
    async with Relay(Faults(refuse_auth=refusal)) as relay:
        with pytest.raises(ConnectFailed, match=r"^signing in failed for now: ") as caught:
            await _sign_in(relay)
    assert not isinstance(caught.value, SignInRefused)
    assert caught.value.code == int(refusal[:3])


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("is_named", [False, True])
async def test_a_token(mechanism: str, is_named: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """A token signs in by XOAUTH2 or OAUTHBEARER (RFC 7628), whichever is offered where EMAIL_AUTH is not set."""
    (tmp_path / "token").write_text("token\n")
    values = {"EMAIL_AUTH": mechanism.lower()} if is_named else {}
    async with Relay(Faults(auth=("PLAIN", mechanism))) as relay:
        await _sign_in(relay, EMAIL_TOKEN_FILE=str(tmp_path / "token"), APP_PASSWORD="", **values)
    assert [line.split()[1] for line in _auths(relay)] == [mechanism]


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_a_refused_token(mechanism: str, tmp_path: Path) -> None:
    """The error step of a refused token is answered, so that the relay's refusal comes; the token stays secret."""
    (tmp_path / "token").write_text("stale-token")
    async with Relay(Faults(auth=(mechanism,))) as relay:
        with pytest.raises(SignInRefused, match=r"535 5\.7\.8 wrong credentials$") as caught:
            await _sign_in(relay, EMAIL_TOKEN_FILE=str(tmp_path / "token"), APP_PASSWORD="")
    assert "stale" not in str(caught.value)


@pytest.mark.parametrize("user", ["", "client.test"])
async def test_a_client_certificate(user: str, certificates: Certificates) -> None:
    """EXTERNAL signs in by the certificate of EMAIL_CERT_FILE, with EMAIL or without."""
    faults = Faults(auth=("PLAIN", "EXTERNAL"), security="tls", wants_certificate=True)
    async with Relay(faults, certificates=certificates) as relay:
        await _sign_in(relay, EMAIL_AUTH="external", EMAIL=user, APP_PASSWORD="", **_files(certificates))
    assert [line.split()[1] for line in _auths(relay)] == ["EXTERNAL"]


async def test_a_client_certificate_that_is_missing(certificates: Certificates) -> None:
    """A relay that asks for a certificate ends TLS without one, and the error names the setting."""
    faults: dict[str, Any] = {"auth": (), "security": "tls", "wants_certificate": True}
    async with Relay(Faults(**faults), certificates=certificates) as relay:  # asyncio sends no alert
        with pytest.raises(ConnectFailed, match=r"closed the connection without a greeting; .*EMAIL_CERT_FILE"):
            await _sign_in(relay, EMAIL="", APP_PASSWORD="", EMAIL_CA_FILE=str(certificates.ca_file))


async def test_an_alert_about_a_missing_client_certificate(certificates: Certificates) -> None:
    """A relay that says by an alert of TLS that it wants a certificate is understood (RFC 8446, 6.2)."""
    ca = str(certificates.ca_file)
    async with failing_handshake(certificates.server_context(wants_certificate=True)) as port:
        with pytest.raises(ConnectFailed, match=r"client certificate.*EMAIL_CERT_FILE"):
            await dial_port(port, EMAIL_SECURITY="tls", EMAIL_CA_FILE=ca)


def _files(certificates: Certificates) -> dict[str, str]:
    return {"EMAIL_CA_FILE": str(certificates.ca_file), "EMAIL_CERT_FILE": str(certificates.client_file)}
