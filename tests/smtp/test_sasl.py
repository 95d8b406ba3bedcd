"""The mechanisms of sign-in: what goes out first, and what answers a challenge."""

from base64 import b64encode

import pytest

from otpmail.smtp.sasl import MECHANISMS, Credentials, Mechanism, Unanswerable, read_challenge

KNOWN = Credentials("ada@example.org", "hunter2", "relay.test", 587)


def _begin(name: str, known: Credentials = KNOWN) -> Mechanism:
    return MECHANISMS[name](known)


def _prompt(text: str) -> bytes:
    return read_challenge(b64encode(text.encode()).decode())


@pytest.mark.parametrize(
    ("name", "initial"),
    [
        ("plain", b"\0ada@example.org\0hunter2"),  # RFC 4616
        ("login", None),
        ("cram-md5", None),
        ("xoauth2", b"user=ada@example.org\1auth=Bearer hunter2\1\1"),
        ("oauthbearer", b"n,a=ada@example.org,\1host=relay.test\1port=587\1auth=Bearer hunter2\1\1"),  # RFC 7628, 4.1
        ("external", b"ada@example.org"),
    ],
)
def test_what_goes_out_first(name: str, initial: bytes | None) -> None:
    """Each mechanism sends its initial response with AUTH, or waits for the relay to ask."""
    assert _begin(name).initial == initial


def test_external_without_a_name() -> None:
    """Without EMAIL the relay takes the name from the certificate (RFC 4422, appendix A)."""
    assert _begin("external", Credentials("", "", "relay.test", 465)).initial == b""


def test_a_user_in_oauthbearer() -> None:
    """A comma and an equals sign in the name are escaped (RFC 5801, 4)."""
    assert (_begin("oauthbearer", Credentials("a=b,c", "t", "h", 1)).initial or b"").startswith(b"n,a=a=3Db=2Cc,\1")


@pytest.mark.parametrize("name", ["plain", "xoauth2", "oauthbearer", "external"])
def test_an_initial_response_that_is_ignored(name: str) -> None:
    """A relay that asks for the initial response again gets it again (RFC 4954, 4), and once more is too much."""
    mechanism = _begin(name)
    assert mechanism.respond(b"") == mechanism.initial
    with pytest.raises(Unanswerable):
        mechanism.respond(b"")


@pytest.mark.parametrize(("name", "dismissal"), [("xoauth2", b""), ("oauthbearer", b"\1")])
def test_a_refused_token(name: str, dismissal: bytes) -> None:
    """After the error step the client says that it has read it: the refusal comes after that (RFC 7628, 3.2.3)."""
    assert _begin(name).respond(b'{"status":"invalid_token"}') == dismissal


def test_cram_md5() -> None:
    """The example of RFC 2195, 2."""
    mechanism = _begin("cram-md5", Credentials("tim", "tanstaaftanstaaf", "", 0))
    challenge = read_challenge("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
    assert mechanism.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("VXNlcm5hbWU6", "UGFzc3dvcmQ6"),  # Username: Password:
        ("VXNlciBOYW1lAA==", "UGFzc3dvcmQA"),  # draft-murchison-sasl-login: User Name\0, Password\0
        ("dXNlcm5hbWU6", "cGFzc3dvcmQ6"),  # in lower case, as qmail's patches write it
        ("Username:", "Password:"),  # not encoded
        ("Username", "Password"),  # which is base64 of eight letters
        ("", ""),
        ("", "UGFzc3dvcmQ6"),
        (b64encode(b"Benutzername:").decode(), b64encode(b"Kennwort:").decode()),
        (b64encode("Имя пользователя:".encode()).decode(), b64encode("Пароль:".encode()).decode()),
        (b64encode(b"Enter your e-mail address").decode(), b64encode(b"Password for ada@example.org").decode()),
        (b64encode(b"Hello, please sign in").decode(), "UGFzc3dvcmQ6"),
    ],
)
def test_login(user: str, password: str) -> None:
    """Each prompt is read as what it asks for, encoded or not; one without words asks for what is left."""
    mechanism = _begin("login")
    assert mechanism.respond(read_challenge(user)) == b"ada@example.org"
    assert mechanism.respond(read_challenge(password)) == b"hunter2"


def test_login_in_the_other_order() -> None:
    """A relay that asks for the password first gets that first."""
    mechanism = _begin("login")
    assert mechanism.respond(_prompt("Password:")) == b"hunter2"
    assert mechanism.respond(_prompt("Username:")) == b"ada@example.org"


@pytest.mark.parametrize(
    "prompts",
    [
        ("Username:", "Username:"),
        ("", "User Name"),
        ("Username:", "Realm:"),
        ("Domain:", "Domain:"),
        ("Username:", "One-time token"),
        ("Username:", "\x01\x02\xff"),
        ("Password:", "Password:"),
    ],
)
def test_a_prompt_that_login_cannot_answer(prompts: tuple[str, str]) -> None:
    """The password is never sent where another thing is asked for, or a second time."""
    mechanism = _begin("login")
    mechanism.respond(_prompt(prompts[0]))
    with pytest.raises(Unanswerable):
        mechanism.respond(_prompt(prompts[1]))


def test_credentials_show_no_secret() -> None:
    """The repr of credentials is without the secret."""
    assert "hunter2" not in repr(KNOWN)
