"""`otpmail templates`: what it checks, and what it shows of a mail."""

import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from otpmail.cli import app

pytestmark = pytest.mark.usefixtures("empty_directory")

EXAMPLES = Path(__file__).parents[2] / "examples" / "templates"


def _run(*arguments: str, **settings: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(app, ["templates", *arguments], prog_name="otpmail", env=settings)
    return ran.exit_code, ran.stdout, ran.stderr


def test_the_shipped_templates_are_good() -> None:
    """`check` names the languages."""
    code, out, _ = _run("check")
    assert (code, out.split(":")[:2]) == (0, ["templates", " good, 14 languages"])


def test_the_examples_are_good() -> None:
    """Each purpose of the examples has a mail of its own, and other purposes have the words beside them."""
    assert _run("check", "--dir", str(EXAMPLES))[0] == 0
    assert {folder.name for folder in (EXAMPLES / "en").iterdir() if folder.is_dir()} == {
        *("login", "signup", "reset", "verify", "change-email", "confirm")
    }
    for purpose, line in (("reset", "A new password"), ("signup", "Welcome"), ("door", "Here is your code")):
        code, out, _ = _run("preview", "--dir", str(EXAMPLES), "--purpose", purpose)
        assert code == 0
        assert f"\n{line}\n" in out
        assert "271828" in out


def test_a_misspelt_name() -> None:
    """A language, a purpose or a file that is probably misspelt is a warning with the nearest name; `ne` is Nepali."""
    for place in ("en", "enn", "en/lgoin", "en/reset", "en/door", "login", "ne"):
        folder = Path("mails", place)
        folder.mkdir(parents=True)
        for name in ("subject", "body"):
            (folder / f"{name}.txt.j2").write_text("{{ code }}")
    Path("mails/en/body.htlm.j2").write_text("{{ code }}")
    Path("mails/en/empty").mkdir()
    code, out, err = _run("check", "--dir", "mails")
    assert (code, out) == (0, "templates: good, 4 languages: en, enn, login, ne\n")
    assert err.splitlines() == [
        "en/lgoin: did you mean login? Only calls with the purpose lgoin have its mail",
        "enn: did you mean en? Only calls with the locale enn have its mails",
        "login: is no language; did you mean en/login? Only calls with the locale login have its mails",
        "en/body.htlm.j2: is not used; did you mean body.html.j2?",
        "en/empty: has no mail, such as subject.txt.j2 and body.txt.j2",
    ]
    assert _run("check")[2] == _run("check", "--dir", str(EXAMPLES))[2] == ""


def test_a_preview() -> None:
    """A preview has the settings' product, and the language, purpose and life that are asked for."""
    code, out, _ = _run("preview", "--locale", "pl", "--purpose", "reset", "--life", "180", PRODUCT_NAME="Acme")
    assert code == 0
    assert out.startswith("Subject: 271828 to Twój kod do zmiany hasła w Acme\n\n")
    assert "przez 3 minuty " in out
    assert _run("preview", "--html")[1].startswith("<!doctype html>")


def test_a_mistake() -> None:
    """A template that can't be used is one line with its file and line, and exit code 2."""
    folder = Path("mails")
    (folder / "en").mkdir(parents=True)
    for name, text in (("subject", "s"), ("body", "{{ code }}\n{{ cod }}")):
        (folder / "en" / f"{name}.txt.j2").write_text(text)
    for command in ("check", "preview"):
        code, _, err = _run(command, OTP_TEMPLATES_DIR="mails")
        assert code == 2
        assert err == "OTP_TEMPLATES_DIR: en/body.txt.j2:2: unknown variable cod; did you mean code?\n"


@pytest.mark.parametrize("command", ["check", "preview"])
def test_no_such_directory(command: str) -> None:
    """`--dir` without such a directory is one line that has the option and the path, and exit code 2."""
    code, _, err = _run(command, "--dir", "mial")
    line = f"invalid value for '--dir': dir 'mial' does not exist; see otpmail templates {command} --help"
    assert (code, err) == (2, f"otpmail templates {command}: {line}\n")


def test_a_variable() -> None:
    """A mail that needs a variable is shown with it, and says so without."""
    arguments = ("preview", "--dir", str(EXAMPLES), "--purpose", "confirm")
    code, out, _ = _run(*arguments, "--var", "action=pay 5 €")
    assert (code, "pay 5 €" in out) == (0, True)
    assert _run(*arguments)[2] == "--var: the template needs 'action'\n"
    example = "write it as in --var product=Acme\n"
    assert _run(*arguments, "--var", "action")[2] == f"--var: 'action' has no equals sign; {example}"
    assert _run(*arguments, "--var", "=x")[2] == f"--var: '=x' has no name; {example}"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--locale", "../x"), "--locale: is not a language tag such as en or pt-BR (BCP 47)"),
        (("--purpose", "Sign Up"), "--purpose: must be 1 to 32 of a-z, 0-9, _ and -"),
        (("--var", "code=1"), "--var: 'code' is filled in by the service"),
        (("--var", "Shop=1"), "--var: 'Shop' is not a name: a-z, then up to 31 of a-z, 0-9 and _"),
        (("--var", "shop=a\x07"), "--var: "),
        (("--life", "inf"), "otpmail templates preview: invalid value for '--life': must be "),
        (("--life", "0.5"), "otpmail templates preview: invalid value for '--life': must be "),
    ],
)
def test_what_no_call_has(arguments: tuple[str, ...], line: str) -> None:
    """A language, a purpose or a life that no code can have is one line, and exit code 2."""
    code, out, err = _run("preview", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_in_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """--open writes the HTML to a file, names it, and opens it in a browser."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    code, out, _ = _run("preview", "--open")
    file = Path(urlsplit(opened[0]).path)
    assert (code, out) == (0, f"written to {file}\n")
    assert file.read_text("utf-8").startswith("<!doctype html>")
    file.unlink()
