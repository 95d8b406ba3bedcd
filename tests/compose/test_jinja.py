"""Templates of Jinja2: which become formats, what they may do, and what is said of one that is wrong."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otpmail.compose.building import Look
from otpmail.compose.catalog import Templates
from otpmail.compose.jinja import Engine
from otpmail.compose.shown_code import SPELLED
from otpmail.compose.templates import MailTemplate, Rendered
from otpmail.compose.varying import Marks, Space, as_format, mark
from otpmail.compose.words import fill
from otpmail.errors import InvalidArgument, SettingsError

VALUES = {"code": "271828", "reference": "K7QD", "email": "ada@example.org"}


def _write(folder: Path, *, subject: str = "s", text: str | None = "{{ code }}", html: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("subject.txt", subject), ("body.txt", text), ("body.html", html)):
        if part is not None:
            (folder / f"{name}.j2").write_text(part, "utf-8")
    return folder


def _render(folder: Path, purpose: str = "login", *, look: Look | None = None, **variables: str) -> Rendered:
    templates = Templates(folder, default_locale="en", look=look)
    return templates.render("en", purpose, {**variables, **VALUES}, valid_seconds=600.0)


def _problem(folder: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        Templates(folder, default_locale="en")
    (line,) = caught.value.problems
    return line


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("{{ code }} {{ variables.shop }} {{ words.title }}", True),
        ("{% if product_name %}{{ code }}{% endif %}", True),
        ("{% for n in [1, 2] %}{{ code }}{% endfor %}", True),
        ("{{ product_name|upper }}{{ code }}", True),
        ("{% set code = 'x' %}{{ code }}", True),
        ("{{ code|upper }}", False),
        ("{{ code ~ code }}", False),
        ("{{ code[:3] }}", False),
        ("{% if variables.shop %}{{ code }}{% endif %}", False),
        ("{% set x = code %}{{ x }}", False),
        ("{% for n in code %}{{ n }}{% endfor %}", False),
        ("{% filter upper %}{{ code }}{% endfilter %}", False),
        ("{% set x %}{{ code }}{% endset %}{{ x|length }}", False),
        ("{% macro m() %}{{ code }}{% endmacro %}{{ m()|upper }}", False),
        ("{% filter upper %}{% include 'b.txt.j2' %}{% endfilter %}", False),
        ("{% include 'b.txt.j2' %}", True),
        ("{% include 'c.txt.j2' %}", False),
        ("{% extends 'd.txt.j2' %}{% block a %}{{ super() }}{% endblock %}", True),
        ("{% extends 'd.txt.j2' %}{% block a %}{{ super()|upper }}{% endblock %}", False),
        ("{% block a %}{{ code }}{% endblock %}{{ self.a()|upper }}", False),
        ("{{ variables['shop'] }}{{ code }}", False),
        ("{{ variables }}{{ code }}", False),
    ],
)
def test_which_templates_become_formats(source: str, plain: bool) -> None:  # noqa: FBT001
    """A template becomes a format only where what varies is printed as it is, and nothing else depends on it."""
    others = {
        "b.txt.j2": "{{ code }}",
        "c.txt.j2": "{{ code|upper }}",
        "d.txt.j2": "{% block a %}{{ code }}{% endblock %}",
    }
    assert Engine({"a.txt.j2": source, **others}).check("a.txt.j2") is plain


PIECES = [
    "{{ code }}",
    "{{ spelled_code }}",
    "{{ valid_for }}",
    "{{ reference }}",
    "{{ email }}",
    "{{ variables.shop }}",
    "{{ words.lead }}",
    "{{ words.valid }}",
    "{{ product_name }}",
    "{{ product_name|upper }}",
    "{% if shows_reference %}",
    "{% endif %}",
    "{% for n in [1, 2] %}",
    "{% endfor %}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{{ code|lower }}",
    "{% if variables.shop == '%' %}",
    "{% set x = 5 %}",
    "{{ code[1:] }}",
    "%",
    "%(code)s",
    "%%",
    "<b>",
    "&",
    "ü",
    "\n",
    "{{ '%s' }}",
]


GIVEN = {
    "code": "271828",
    "spelled_code": "2 7 1 8 2 8",
    "valid_for": "10 <minütes>",
    "minutes": "10",
    "reference": "K7QD",
    "email": "ü@example.org",
}
FIXED = {"product_name": "A&%ß", "shows_reference": True}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join), st.sampled_from(["%s", "<ü>", "", "{{ code }}"]))
def test_a_format_is_filled_as_jinja_renders(source: str, shop: str) -> None:
    """The fast path: where a template becomes a format, its mail is that of Jinja2, in text and in HTML."""
    for name in ("a.txt.j2", "a.html.j2"):
        engine = Engine({name: source})
        try:
            if not engine.check(name):
                continue
        except ValueError:  # blocks that do not match
            return
        values = {**FIXED, **GIVEN, "variables": Space({"shop": shop}), "words": _words(GIVEN)}
        by_format = _by_format(engine, name, shop)
        if name.endswith(".html.j2"):  # references are for what differs, and for all of a template of ASCII
            by_format = by_format.encode("ascii", "xmlcharrefreplace").decode()
        in_full = engine.render(name, values)
        assert by_format == (
            in_full if name.endswith(".txt.j2") else in_full.encode("ascii", "xmlcharrefreplace").decode()
        )


def _words(given: dict[str, str]) -> Space:
    return Space(
        {"lead": fill("{code} <b>", {"code": given["code"]}), "valid": fill("{time}", {"time": given["valid_for"]})}
    )


def _by_format(engine: Engine, name: str, shop: str) -> str:
    marks = {key: mark(key) for key in GIVEN}
    form, names = as_format(engine.render(name, {**FIXED, **marks, "variables": Marks({}), "words": _words(marks)}))
    mail = MailTemplate("", form, form, frozenset(names), names).render(
        {**GIVEN, SPELLED: GIVEN["spelled_code"], "shop": shop}
    )
    return mail.html if name.endswith(".html.j2") else mail.text


def test_a_template_that_depends_on_a_variable(tmp_path: Path) -> None:
    """A template with a condition is rendered for each mail, with the values and escapes of one that is a format."""
    text = "{% if variables.shop == 'a' %}first{% else %}{{ variables.shop }}{% endif %} {{ code }} {{ words.valid }}"
    _write(tmp_path / "en", text=text, html=f"<p>{text}")
    look = Look(domain="acme.example")
    mail = _render(tmp_path, look=look, shop="<ü>")
    assert mail.text == "<ü> 271828 This code works once and is valid for 10 minutes.\n\n@acme.example #271828\n"
    assert mail.html == "<p>&lt;&#252;&gt; 271828 This code works once and is valid for 10 minutes."
    assert _render(tmp_path, look=look, shop="a").text.startswith("first 271828")
    with pytest.raises(InvalidArgument, match="shop") as caught:
        _render(tmp_path)
    assert caught.value.field == "variables"


def test_a_failure_shows_no_value(tmp_path: Path) -> None:
    """A caller whose variables make a template fail learns where, and not what the template was filled with."""
    _write(tmp_path / "en", text="{{ code }}\n{{ code|int // variables.n|int }}")
    with pytest.raises(InvalidArgument) as caught:
        _render(tmp_path, n="0")
    assert str(caught.value) == "variables: can't be filled into the template: fails at en/body.txt.j2:2"
    with pytest.raises(InvalidArgument, match=r"there is no 'n'$"):
        _render(tmp_path)


def test_a_variable_that_is_missing(tmp_path: Path) -> None:
    """A format names the variable that a request lacks."""
    _write(tmp_path / "en", text="{{ code }} {{ variables.shop }}")
    assert _render(tmp_path, shop="Acme").text == "271828 Acme"
    with pytest.raises(InvalidArgument, match=r"^variables: the template needs 'shop'"):
        _render(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{ code }}\n\n{{ cod }}", "en/body.txt.j2:3: unknown variable cod; did you mean code?"),
        (
            "{{ code }}{{ shop }}",
            "en/body.txt.j2:1: unknown variable shop; a variable of the request is variables.shop",
        ),
        ("{{ code }}\n{% if %}", "en/body.txt.j2:2: Expected an expression, got 'end of statement block'"),
        ("{{ code }}\n{% for x in [1] %}", "en/body.txt.j2:2: Unexpected end of template. Jinja was looking for"),
        ("{{ code }}\n{{ 1 / (1 - 1) }}", "en/body.txt.j2:2: division by zero"),
        ("{{ code }}\n{{ words.nothing }}", "en/body.txt.j2:2: there is no 'nothing'"),
        ("{{ code|nothing }}", "en/body.txt.j2:1: No filter named 'nothing'."),
        ("\n{{ code.__class__ }}", "en/body.txt.j2:2: access to attribute '__class__' of"),
        ("{{ code }}{% include 'x.j2' %}", "en/body.txt.j2:1: there is no template 'x.j2'"),
        ("{{ code }}\n{% include 'en/part.txt.j2' %}", "en/part.txt.j2:2: unknown variable oops"),
        ("hello", "en/body.txt.j2:1: has no {{ code }}"),
        ("{% if variables.x == 'never' %}{{ code }}{% endif %}", "en/body.txt.j2:1: has no {{ code }}"),
        ("\x1e{{ code }}", "en/body.txt.j2: has a control character"),
        ("{{ code }}\0", "en/body.txt.j2:1: has a NUL, which no mail can have"),
        ("{{ code }}\n{{ variables }}", "en/body.txt.j2:2: prints variables or words as a whole"),
        ("{{ code }}\n{{ words }}", "en/body.txt.j2:2: prints variables or words as a whole"),
    ],
)
def test_a_mistake_has_its_file_and_line(tmp_path: Path, text: str, line: str) -> None:
    """A template that is broken, has an unknown name, does what it may not, or lacks the code ends the start."""
    _write(tmp_path / "en", text=text)
    (tmp_path / "en" / "part.txt.j2").write_text("\n{{ oops }}")
    assert _problem(tmp_path).startswith(f"OTP_TEMPLATES_DIR: {line}")


_LOOP = "{% for a in s %}"
_UNENDING = "takes more than 10000 steps; a loop or a template may have no end"
_TOO_DEEP = "is nested too deeply, or uses itself"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{ code }}\n{% include 'en/body.txt.j2' %}", f"en/body.txt.j2:2: {_TOO_DEEP}"),
        ("{{ code }}{% include 'en/part.txt.j2' %}", "en/"),
        ("{% extends 'en/body.txt.j2' %}", f"en/body.txt.j2:1: {_TOO_DEEP}"),
        ("{{ code }}\n{% macro a() %}\n{{ a() }}\n{% endmacro %}{{ a() }}", f"en/body.txt.j2:3: {_TOO_DEEP}"),
        ("{{ code }}{% block a %}{{ self.a() }}{% endblock %}", f"en/body.txt.j2:1: {_TOO_DEEP}"),
        ("{{ code }}" + "{% if 1 %}" * 300 + "{% endif %}" * 300, f"en/body.txt.j2: {_TOO_DEEP}"),
        ("{{ code }}{{ " + "code" + "|upper" * 300 + " }}", f"en/body.txt.j2: {_TOO_DEEP}"),
        ("{{ code }}{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", f"en/body.txt.j2: {_TOO_DEEP}"),
        ("{{ code }}{% set s = 'x' * 2000 %}\n" + _LOOP * 3 + "{% endfor %}" * 3, f"en/body.txt.j2:2: {_UNENDING}"),
        ("{{ code }}{% set s = 'x' * 200 %}" + _LOOP * 2 + "\n{{ s.upper() }}" + "{% endfor %}" * 2, "en/body.txt.j2:"),
        (
            "{{ code }}{% macro a0() %}{% endmacro %}"
            + "".join(f"{{% macro a{n + 1}() %}}{{{{ a{n}() }}}}{{{{ a{n}() }}}}{{% endmacro %}}" for n in range(60))
            + "\n{{ a60() }}",
            f"en/body.txt.j2:1: {_UNENDING}",
        ),
        ("{{ code }}\n{{ 'x' * 3000000000 }}", "en/body.txt.j2:2: repeats a text to more than 10000 characters"),
        ("{{ code }}\n{{ 3000000000 * [1] }}", "en/body.txt.j2:2: repeats a text to more than 10000 characters"),
        ("{{ code }}\n{{ 9 ** 99999999 }}", "en/body.txt.j2:2: has a power, which could take for ever"),
    ],
)
def test_a_template_without_an_end(tmp_path: Path, text: str, line: str) -> None:
    """A template that includes itself, or loops for long, ends the start with its file and line."""
    _write(tmp_path / "en", text=text)
    (tmp_path / "en" / "part.txt.j2").write_text("{% include 'en/body.txt.j2' %}")
    problem = _problem(tmp_path)
    assert problem.startswith(f"OTP_TEMPLATES_DIR: {line}")
    assert re.search(r":\d+: |: is nested too deeply", problem)


def test_includes_that_double(tmp_path: Path) -> None:
    """Templates that each use the next one twice come to an end too."""
    _write(tmp_path / "en", text="{{ code }}{% include '_p/0.j2' %}")
    _write(tmp_path / "_p")
    for n in range(40):
        (tmp_path / "_p" / f"{n}.j2").write_text(f"{{% include '_p/{n + 1}.j2' %}}" * 2)
    (tmp_path / "_p" / "40.j2").write_text("x")
    assert _UNENDING in _problem(tmp_path)


def test_the_loops_of_a_usual_template(tmp_path: Path) -> None:
    """Each mail has all of its steps, and a loop knows its place and its length."""
    loop = "{% for a in variables.all.split(',') %}{{ loop.index }}/{{ loop.length }} {{ a }}\n{% endfor %}"
    folder = _write(tmp_path / "en", text=f"{{{{ code }}}}\n{{% set s = 'x' * 9000 %}}{_LOOP}{{% endfor %}}{loop}")
    templates = Templates(folder.parent, default_locale="en")
    for _ in range(3):
        mail = templates.render("en", "login", {**VALUES, "all": "Ada,Grace"}, valid_seconds=600.0)
        assert mail.text == "271828\n1/2 Ada\n2/2 Grace\n"


def test_a_mail_whose_variables_make_it_too_long(tmp_path: Path) -> None:
    """A call whose variables lead to too many steps is refused, and the next one has its mail."""
    loop = "{% for a in variables.s %}{% for b in variables.s %}{% endfor %}{% endfor %}"
    folder = _write(tmp_path / "en", text=f"{{{{ code }}}}{loop}")
    with pytest.raises(
        InvalidArgument, match=r"^variables: can't be filled into the template: fails at en/body.txt.j2:1$"
    ):
        _render(folder.parent, s="x" * 1000)
    assert _render(folder.parent, s="x").text == "271828"


@pytest.mark.parametrize(
    "html",
    [
        "<p>Hi</p><!-- {{ code }} -->",
        "<html><head><title>{{ code }}</title></head><body>Hi</body></html>",
        "<STYLE>.a{content:'{{ code }}'}</STYLE >Hi",
        "{% if variables.x %}<p>Hi</p>{% endif %}<!--\n{{ spelled_code }} -->",
        "<p>Hi</p><!-- {{ code }}",
    ],
)
def test_a_code_that_nobody_sees(tmp_path: Path, html: str) -> None:
    """A code in a comment, in a title or in styles does not count as shown."""
    _write(tmp_path / "en", html=html)
    assert _problem(tmp_path) == "OTP_TEMPLATES_DIR: en/body.html.j2:1: has no {{ code }}"


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("x" * 901, "is longer than 900 characters"),
        ("a\x07b", "has a character that no subject can have"),
        ("a\u2028b", "has a character that no subject can have"),
    ],
)
def test_a_subject_that_no_mail_can_have(tmp_path: Path, subject: str, fault: str) -> None:
    """Each mail would be refused, so the start is. A subject of the older form is no other."""
    _write(tmp_path / "jinja" / "en", subject=subject)
    assert _problem(tmp_path / "jinja").startswith(f"OTP_TEMPLATES_DIR: en/subject.txt.j2: {fault}")
    older = tmp_path / "older" / "en"
    older.mkdir(parents=True)
    (older / "subject.txt").write_text(subject, "utf-8")
    (older / "body.txt").write_text("$code")
    assert _problem(tmp_path / "older").startswith(f"OTP_TEMPLATES_DIR: en: subject.txt: {fault}")


@pytest.mark.parametrize(
    ("tag", "words"), [("zh-TW", "zh-hant"), ("zh_Hant_HK", "zh-hant"), ("zh-SG", "zh"), ("iw", "he")]
)
def test_the_words_of_a_region(tmp_path: Path, tag: str, words: str) -> None:
    """A folder of a region has the words of its script, as a mail to a reader there."""
    _write(tmp_path / tag, subject="{{ words.subject }}", text="{{ code }} {{ words.valid }}")
    own, shipped = Templates(tmp_path, default_locale=tag), Templates(None, default_locale="en")
    for seconds in (2, 600):
        mail = own.render("", "login", VALUES, valid_seconds=seconds)
        expected = shipped.render(words, "login", VALUES, valid_seconds=seconds)
        assert mail.subject == expected.subject
        assert mail.text.removeprefix("271828 ") in expected.text


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"subject.txt.j2": "s"}, "en: needs subject.txt.j2, and body.txt.j2, body.html.j2 or both"),
        ({"body.txt.j2": "{{ code }}"}, "en: needs subject.txt.j2, and body.txt.j2, body.html.j2 or both"),
        ({"subject.txt.j2": "s", "body.txt": "$code"}, "en: has body.txt beside files of Jinja2; name all of them .j2"),
        ({"subject.txt.j2": "a\nb", "body.txt.j2": "{{ code }}"}, "en/subject.txt.j2: has more than one line"),
        ({"words.toml": "a = "}, "en/words.toml: "),
        ({"words.toml": "[code]\ntitle = 5"}, "en/words.toml: lacks code.title, a text in quotes"),
        ({"words.toml": "[code]\ntitle = '{cod}'"}, "en/words.toml: code.title has {cod}; there are {code}, "),
        (
            {"words.toml": "[sign_inn]\ntitle = 'a'"},
            "en/words.toml: has an unknown part, sign_inn; did you mean sign_in?",
        ),
        (
            {"words.toml": "[reset]\ntitel = 'a'"},
            "en/words.toml: has an unknown part, reset.titel; did you mean reset.title?",
        ),
        ({"words.toml": "[hour]\nsome = 'a'"}, "en/words.toml: has an unknown part, hour.some"),
        ({"words.toml": "direction = 'RTL'"}, 'en/words.toml: direction must be "ltr" or "rtl"'),
        ({"words.toml": "[reset]\ntitle = 'a {code'"}, "en/words.toml: reset.title has a { without its other one"),
        (
            {"words.toml": "[reset]\ntitle = 'a [to {product}'"},
            "en/words.toml: reset.title has a [ without its other one",
        ),
        ({"words.toml": '[reset]\nsubject = "a\\nb"'}, "en/words.toml: reset.subject has more than one line"),
        ({"readme.md": ""}, "en: subject.txt is missing, or subject.txt.j2 for a template of Jinja2"),
    ],
)
def test_a_mistake_in_a_folder(tmp_path: Path, files: dict[str, str], line: str) -> None:
    """A folder whose files make no mail is named."""
    (tmp_path / "en").mkdir()
    for name, text in files.items():
        (tmp_path / "en" / name).write_text(text)
    assert _problem(tmp_path).startswith(f"OTP_TEMPLATES_DIR: {line}")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("mkdir en/body.html.j2", "en/body.html.j2: is not a file"),
        ("mkdir -p _parts/a.j2", "_parts/a.j2: is not a file"),
        ("mkfifo en/body.html.j2", "en/body.html.j2: is not a file"),
        ("mkfifo a.j2", "a.j2: is not a file"),
        ("ln -s nothing en/body.html.j2", "en/body.html.j2: is not a file"),
        ("mkfifo en/words.toml", "en/words.toml: is not a file"),
        ("mkdir en/words.toml", "en/words.toml: is not a file"),
        ("rm en/* && mkfifo en/subject.txt", "en: subject.txt: is not a file"),
        ("rm en/* && echo s >en/subject.txt && ln -s /dev/zero en/body.txt", "en: body.txt: is not a file"),
        ("rm en/* && echo s >en/subject.txt && mkdir en/body.txt", "en: body.txt: is not a file"),
        (
            "rm en/* && echo s >en/subject.txt && echo '$code' >en/body.txt && ln -s nothing en/body.html",
            "en: body.html: is not a file",
        ),
        ("mkfifo en/valid_for.txt", "en: valid_for.txt: is not a file"),
        ("printf 'a\\n\\n\\351' >en/body.txt.j2", "en/body.txt.j2:3: is not text in UTF-8"),
        ("printf '\\377\\376a' >en/words.toml", "en/words.toml:1: is not text in UTF-8"),
        ("cp -r en EN", "en: is there twice, in another spelling"),
        ("cp -r en templates", "templates: no call can ask for this name; it must be such as en or pt-BR"),
        ("cp -r en x && mv x 'en/Sign Up'", "en/Sign Up: no call can ask for this name; it must be such as sign-up"),
        ("mkdir en/a && cp en/*.j2 en/a && cp -r en/a en/A", "en/a: is there twice, in another spelling"),
    ],
)
def test_an_odd_folder_or_file(tmp_path: Path, change: str, line: str) -> None:
    """A folder, pipe or device in place of a file, a file without text, and a folder for no call, are named."""
    _write(tmp_path / "en")
    subprocess.run(["sh", "-c", change], cwd=tmp_path, check=True)
    assert _problem(tmp_path).startswith(f"OTP_TEMPLATES_DIR: {line}")


def test_a_language_without_words(tmp_path: Path) -> None:
    """A language that is not shipped needs a mail for all purposes or all of the words, and has times by symbols."""
    _write(tmp_path / "nl" / "reset")
    assert "nl: needs a mail for all purposes, or words.toml" in _problem(tmp_path)
    _write(tmp_path / "nl", text="{{ code }} {{ valid_for }}")
    templates = Templates(tmp_path, default_locale="nl")
    assert templates.render("nl", "login", VALUES, valid_seconds=600.0).text == "271828 10 min"
    assert templates.render("nl", "reset", VALUES, valid_seconds=600.0).text == "271828"


def test_whether_a_variable_is_given(tmp_path: Path) -> None:
    """`in` asks whether a call has a variable, and the check of such a template ends."""
    _write(tmp_path / "en", text="{{ code }}{% if 'shop' in variables %} {{ variables.shop }}{% endif %}")
    assert _render(tmp_path).text == "271828"
    assert _render(tmp_path, shop="Acme").text == "271828 Acme"


@pytest.mark.parametrize("space", ["variables", "words"])
def test_a_loop_over_all_variables(tmp_path: Path, space: str) -> None:
    """Variables and words have no order, so a loop over them is an error in words, with its line."""
    _write(tmp_path / "en", text=f"{{{{ code }}}}\n{{% for one in {space} %}}{{% endfor %}}")
    assert _problem(tmp_path) == (
        "OTP_TEMPLATES_DIR: en/body.txt.j2:2: loops over variables or words as a whole; name one, as in variables.shop"
    )


def test_a_language_in_a_purpose(tmp_path: Path) -> None:
    """Folders that are swapped are an error that says how they stand in each other."""
    _write(tmp_path / "login" / "en")
    assert _problem(tmp_path).endswith("for it; a purpose is a folder in that of a language, as en/login")


def test_the_mail_of_a_purpose(tmp_path: Path) -> None:
    """A folder in a language is for the purpose of its name and others of its kind; the rest has the shipped mail."""
    _write(tmp_path / "en" / "reset", subject="reset")
    _write(tmp_path / "en" / "door", subject="door")
    _write(tmp_path / "_parts", subject="no language")
    subjects = {purpose: _render(tmp_path, purpose).subject for purpose in ("reset", "password-reset", "door", "login")}
    assert subjects == {
        "reset": "reset",
        "password-reset": "reset",
        "door": "door",
        "login": "271828 is your sign-in code",
    }


def test_words_of_ones_own(tmp_path: Path) -> None:
    """Words stand in the places of the shipped ones, one by one; a region has those of its language."""
    for tag in ("en", "de-AT"):
        (tmp_path / tag).mkdir()
        (tmp_path / tag / "words.toml").write_text("[sign_in]\ntitle = 'Servus'\n", "utf-8")
    templates = Templates(tmp_path, default_locale="en")
    assert templates.render("en", "login", VALUES, valid_seconds=60.0).text.startswith("Servus\n\nEnter this code")
    assert templates.render("de-AT", "login", VALUES, valid_seconds=60.0).text.startswith("Servus\n\nGeben Sie")


def test_templates_are_equal_by_their_files(tmp_path: Path) -> None:
    """A reload finds what has changed, also in a template that each mail renders."""
    _write(tmp_path / "en", text="{{ code|upper }}")
    before = Templates(tmp_path, default_locale="en")
    assert Templates(tmp_path, default_locale="en") == before
    _write(tmp_path / "en", text="{{ code|lower }}")
    assert Templates(tmp_path, default_locale="en") != before
    assert Templates(None, default_locale="en") == Templates(None, default_locale="en")
