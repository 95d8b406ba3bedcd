"""A template may read and make so many characters for one mail, by any filter, method, operator or loop."""

import tracemalloc
from itertools import product
from pathlib import Path

import pytest

from otpmail.compose.catalog import Templates
from otpmail.compose.jinja import Engine
from otpmail.compose.sandbox import Sandbox
from otpmail.errors import InvalidArgument, SettingsError

_MOST = "reads and makes more than 1000000 characters"


def _doubled(expression: str, start: str = "'xy'") -> str:
    return f"{{% set a = {start} %}}" + f"{{% set a = {expression} %}}" * 40 + "{{ a }}"


@pytest.mark.parametrize(
    "text",
    [
        "{{ code|center(200000000) }}",
        "{{ 'x'|center(200000000) }}",
        "{{ 'x'|center(width=200000000) }}",
        "{{ code|indent(200000000, true) }}",
        "{{ '%200000000d' % 1 }}",
        "{{ '%*d' % (200000000, 1) }}",
        "{{ '%.200000000f'|format(1.5) }}",
        "{{ '{:200000000}'.format(code) }}",
        "{{ '{:{}}'.format(code, 200000000) }}",
        "{{ '{:{n}}'.format_map({'n': 200000000, '0': 1}) }}",
        "{{ code.ljust(200000000) }}",
        "{{ code.zfill(200000000) }}",
        "{{ code.encode().center(200000000) }}",
        "{{ '\t'.expandtabs(200000000) }}",
        "{{ (1).to_bytes(200000000, 'big') }}",
        "{{ ('a' * 9000).replace('a', 'b' * 9000) }}",
        "{{ ('a' * 9000)|replace('a', 'b' * 9000) }}",
        "{{ ('a' * 9000)|join('b' * 9000) }}",
        "{{ ('a' * 9000)|map('upper')|join('b' * 9000) }}",
        "{{ ('b' * 9000).join('a' * 9000) }}",
        "{{ ('a' * 9000)|map('center', 9000)|join }}",
        "{{ 'a'.translate({97: 'b' * 9000}).translate({98: 'c' * 9000}) }}",
        "{{ [[]]|tojson(200000000) }}",
        "{{ [1]|slice(200000000)|list }}",
        "{{ 1.5|round(200000000, 'floor') }}",
        _doubled("a ~ a"),
        _doubled("a + a"),
        _doubled("[a, a]"),
        _doubled("{'a': a, 'b': a}"),
        _doubled("(a, a)"),
        _doubled("a + a", "[1]"),
        _doubled("a|replace('x', 'xx')"),
        _doubled("a.replace('x', 'xx')"),
        _doubled("'%s%s' % (a, a)"),
        _doubled("'{0}{0}'.format(a)"),
        "{% set a = 'xy' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
        "{% macro m(a, n) %}{{ m(a ~ a, n - 1) if n }}{% endmacro %}{{ m('xy', 40) }}",
        "{% for n in 'x' * 9000 %}" + "long " * 1000 + "{% endfor %}",
        "{% set a %}{% for n in 'x' * 9000 %}" + "long " * 1000 + "{% endfor %}{% endset %}",
    ],
)
@pytest.mark.parametrize("part", ["body.txt.j2", "body.html.j2"])
def test_a_text_without_an_end(tmp_path: Path, text: str, part: str) -> None:
    """The start ends with file and line, before the text is made, and little memory is used."""
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "subject.txt.j2").write_text("s")
    (tmp_path / "en" / part).write_text("{{ code }}\n" + text)
    tracemalloc.start()
    try:
        with pytest.raises(SettingsError) as caught:
            Templates(tmp_path, default_locale="en")
        assert tracemalloc.get_traced_memory()[1] < 24_000_000
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"OTP_TEMPLATES_DIR: en/{part}:2: ")
    assert _MOST in str(caught.value) or "'0'" in str(caught.value)


_TEXT, _LIST = "{% set t = 'ab ' * 3000 %}", "{% set t = ('x' * 9000)|list %}"


@pytest.mark.parametrize(
    "text",
    [
        _TEXT + "{% for n in 'x' * 300 %}{% if t|wordcount %}{% endif %}{% endfor %}",
        _TEXT + "{% for n in 'x' * 300 %}{% if t is upper %}{% endif %}{% endfor %}",
        _TEXT + "{% for n in 'x' * 300 %}{% if t.count('c') %}{% endif %}{% endfor %}",
        _TEXT + "{% for n in 'x' * 300 %}{% if 'c' in t %}{% endif %}{% endfor %}",
        _TEXT + "{% for n in 'x' * 300 %}{% if t == n %}{% endif %}{% endfor %}",
        _TEXT + "{% for n in 'x' * 300 %}{% if t[1:] %}{% endif %}{% endfor %}",
        _TEXT + "{% for n in 'x' * 300 if t[1:] %}{% endfor %}",
        _LIST + "{% for n in 'x' * 300 %}{% if t|max %}{% endif %}{% endfor %}",
        _LIST + "{% for n in 'x' * 300 %}{% if t.count(n) %}{% endif %}{% endfor %}",
        _LIST + "{% for n in 'x' * 300 %}{% if t|map('upper')|select('eq', 'y')|list %}{% endif %}{% endfor %}",
        _LIST
        + "{% for n in [1] recursive %}{% if loop.depth < 2 %}"
        + "{{ loop(t) }}" * 30
        + "{% endif %}{% endfor %}",
        _LIST + "{% for n in [1] if n != 'x' recursive %}" + "{{ loop(t) }}" * 90 + "{% endfor %}",
        "{% for n in 'x' * 300 %}" + "{% if n %}{% endif %}" * 500 + "{% endfor %}",
        "{% macro m() %}"
        + "{% if 1 %}{% endif %}" * 500
        + "{% endmacro %}{% for n in 'x' * 300 %}{{ m() }}{% endfor %}",
        "{% block b %}"
        + "{% if 1 %}{% endif %}" * 500
        + "{% endblock %}{% for n in 'x' * 300 %}{{ self.b() }}{% endfor %}",
        "{% for n in 'x' * 3000 %}{% include '_parts/long.txt.j2' %}{% endfor %}",
        "{{ (('x' * 5000)|batch(1)|sum(start=[]))|length }}",
    ],
)
def test_a_loop_that_only_reads(tmp_path: Path, text: str) -> None:
    """Characters that a template reads count too, and each of its parts as often as it runs."""
    (tmp_path / "en").mkdir()
    (tmp_path / "_parts").mkdir()
    (tmp_path / "_parts" / "long.txt.j2").write_text("{% if 1 %}{% endif %}" * 50)
    (tmp_path / "en" / "subject.txt.j2").write_text("s")
    (tmp_path / "en" / "body.txt.j2").write_text("{{ code }}" + text)
    with pytest.raises(SettingsError, match=rf"^OTP_TEMPLATES_DIR: \S+.txt.j2:1: {_MOST}$"):
        Templates(tmp_path, default_locale="en")


@pytest.mark.parametrize(
    "text",
    [
        "{{ ('f' * 9000)|int(0, 16) // 3 }}",
        "{% if ('f' * 9000)|int(0, 16) is divisibleby 3 %}{% endif %}",
    ],
)
def test_a_number_from_a_text(tmp_path: Path, text: str) -> None:
    """A number that is read from a text has bounds too, since the time of a division grows by its square."""
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "subject.txt.j2").write_text("s")
    (tmp_path / "en" / "body.txt.j2").write_text("{{ code }}" + text)
    with pytest.raises(SettingsError, match=r"en/body.txt.j2:1: makes a number of more than 10000 bits$"):
        Templates(tmp_path, default_locale="en")


def test_a_number_without_an_end(tmp_path: Path) -> None:
    """A number that is multiplied by itself again and again ends the start."""
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "subject.txt.j2").write_text("s")
    (tmp_path / "en" / "body.txt.j2").write_text("{{ code }}\n" + _doubled("a * a", "9"))
    with pytest.raises(SettingsError, match=r"en/body.txt.j2:2: makes a number of more than 10000 bits$"):
        Templates(tmp_path, default_locale="en")


def test_variables_that_make_a_text_too_long(tmp_path: Path) -> None:
    """A call whose variables make it is refused, and the next one has its mail."""
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "subject.txt.j2").write_text("s")
    (tmp_path / "en" / "body.txt.j2").write_text("{{ code }}{{ ' '.ljust(variables.n|int) }}")
    templates = Templates(tmp_path, default_locale="en")
    values = {"code": "271828", "reference": "K7QD", "email": "ada@example.org"}
    with pytest.raises(InvalidArgument, match=r"^variables: can't be filled into the template: fails at en/body"):
        templates.render("en", "login", {**values, "n": "900000000"}, valid_seconds=600.0)
    assert templates.render("en", "login", {**values, "n": "3"}, valid_seconds=600.0).text == "271828   "


def test_what_a_usual_template_does() -> None:
    """Texts of some kilobytes are wrapped, indented, replaced and joined as Jinja2 does."""
    engine = Engine(
        {
            "a.txt.j2": "{{ a|wordwrap(72)|length }} {{ a|indent(4)|length }} {{ a|replace('word', 'a word')|length }} "
            "{{ a.split()|join(', ')|length }} {{ 'x'|center(5) }}{{ '%5.2f' % 3 }} {{ '{:>5}'.format('y') }} "
            "{{ a|truncate(20) }} {{ a[:100]|title|length }} {{ [1, 2]|tojson(2)|length }} {{ 1.25|round(1) }}"
        }
    )
    words = "word " * 2000
    made = engine.render("a.txt.j2", {"a": words})
    assert made == "9999 10000 14000 11998   x   3.00     y word word word... 100 12 1.2"


_NUMBER, _LONG = 30_000_000, "a-b\t\n" * 2000
_VALUES = [_LONG, _LONG.encode(), _LONG.split("\n"), {"a": _LONG, _LONG: "b"}, 7, 1.5]
_ARGUMENTS = [(), *product((_NUMBER, _LONG, "a", {97: _LONG}), repeat=1), *product((_NUMBER, _LONG, "a"), repeat=2)]


@pytest.mark.parametrize("arguments", _ARGUMENTS, ids=lambda given: "-".join(str(one)[:5] for one in given) or "none")
def test_no_filter_or_method_makes_a_product(arguments: tuple[object, ...]) -> None:
    """Whatever filter or method of a value is called with long texts and great numbers, memory stays bounded."""
    env = Sandbox()
    names = [f"arg{n}" for n in range(len(arguments))]
    given = dict(zip(names, arguments, strict=True))
    for value in _VALUES:
        calls = [f"a|{name}({', '.join(names)})|string" for name in env.filters if " " not in name]
        calls += [f"a.{name}({', '.join(names)})|string" for name in dir(value) if not name.startswith("_")]
        for call in calls:
            template = env.from_string(f"{{{{ {call} }}}}")
            env.begin()
            tracemalloc.start()
            try:
                template.render(a=value, **given)
            except Exception:  # noqa: BLE001  most do not fit a value
                pass
            finally:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            assert peak < 24_000_000, call
