"""The pages: their links lead somewhere, and the files and figures that they name are there."""

import re
import tomllib
from pathlib import Path

import pytest

from benchmarks.report import pages

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md", ROOT / "examples/README.md"]
)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`")
_TREE_FILE = re.compile(r"\b[a-z_]+\.py\b")
_TEST_NAME = re.compile(r"`((?:tests|benchmarks)/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on a Git host."""
    headings = _HEADING.findall(_CODE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """A relative link names a file of the repository, and its anchor is a heading of that page."""
    for link in _LINK.findall(_CODE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    """A path in code style, like `smtp/session.py` or `tests/relay/`, is in the package or in the repository."""
    for name in _FILE.findall(_CODE.sub("", page.read_text("utf-8"))):
        assert any((root / name).exists() for root in (ROOT, ROOT / "src/otpmail", page.parent)), name


def test_each_folder_is_explained() -> None:
    """The architecture page has a line for each folder of the package."""
    table = (ROOT / "docs/architecture.md").read_text("utf-8")
    for folder in (ROOT / "src/otpmail").glob("*/__init__.py"):
        assert re.search(rf"^\| .*`{folder.parent.name}/`.* \|", table, re.MULTILINE), folder.parent.name


def test_the_import_line_is_that_of_the_contract() -> None:
    """The architecture page shows the layers that import-linter checks."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    line = re.findall(r"## Which way imports run\n\n```\n(.*?)```", page, re.DOTALL)[0]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if "otpmail" in contract.get("containers", ())]
    shown = [re.split(r",\s+", layer.strip()) for layer in line.split(">")]
    assert [sorted(layer) for layer in shown] == [sorted(layer.split(" | ")) for layer in layers]


def test_modules_are_named_in_their_folders() -> None:
    """The tree of the modules page has every file that it names in its folder, and every folder of the package."""
    [tree] = _CODE.findall((ROOT / "docs/modules.md").read_text("utf-8"))
    package, rooms = ROOT / "src/otpmail", set()
    room = package
    for line in tree.splitlines()[3:-1]:
        indent = len(line) - len(line.lstrip())
        if indent == 2:
            room = package
        for name in re.findall(r"\b([a-z_0-9]+)/", line):
            if (package / name).is_dir():
                rooms.add(name)
                room = package / name if indent == 2 else room
        for name in _TREE_FILE.findall(line):
            assert (room / name).is_file(), f"{room.name}/{name}"
    assert rooms >= {path.parent.name for path in package.glob("*/__init__.py")} - {"templates"}


def test_each_module_is_named() -> None:
    """The tree of the modules page names every module that is not generated, in the lines of its folder."""
    [tree] = _CODE.findall((ROOT / "docs/modules.md").read_text("utf-8"))
    package = ROOT / "src/otpmail"
    lines: dict[Path, str] = {}
    room = package
    for line in tree.splitlines()[3:-1]:
        indent, first = len(line) - len(line.lstrip()), line.split()[0].rstrip(":")
        if indent == 2:
            room = package / first if first.endswith("/") else package
        elif indent == 4:
            top = package / room.relative_to(package).parts[0] if room != package else package
            room = top / first if first.endswith("/") else top
        lines[room] = f"{lines.get(room, '')} {line}"
    missing = []
    for path in sorted(package.rglob("*.py")):
        folder = path.relative_to(package).parts[:-1]
        if path.name == "__init__.py" or folder[:1] in {("v1",), ("original",)}:
            continue
        name = path.name if len(folder) < 2 else path.stem  # those of a folder in a folder stand without .py
        if not re.search(rf"(?<![\w.]){re.escape(name)}\b", lines.get(path.parent, "")):
            missing.append(str(path.relative_to(package)))
    assert missing == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_decisions_have_one_form(page: Path) -> None:
    """A decision stands in the list by its title, and says what was decided, why, what it costs and where it is."""
    text = page.read_text("utf-8")
    heading = re.match(r"# ([0-9]{3}): (.*)\n", text)
    assert heading is not None
    row = f"| [{heading[1]}]({page.name}) | {heading[2]} |\n"
    assert (ROOT / "docs/decisions/README.md").read_text("utf-8").count(row) == 1
    for part in ("Decision", "Why", "Cost", "Where"):
        assert f"\n**{part}.**" in text, part


def promises() -> list[list[str]]:
    """Return the rows of all tables of the security page: attack, promise, tests."""
    rows = re.findall(r"^\| (.*) \|$", (ROOT / "docs/security.md").read_text("utf-8"), re.MULTILINE)
    return [row.split(" | ") for row in rows if not row.endswith("| Test")]


@pytest.mark.parametrize("promise", promises(), ids=lambda row: re.sub(r"[^a-z0-9]+", "-", row[0].lower())[:40])
def test_each_promise_names_its_test(promise: list[str]) -> None:
    """Each promise of the security page names tests that exist, or says that it has none."""
    assert len(promise) == 3, promise
    named = _TEST_NAME.findall(promise[2])
    assert named or promise[2] == "no test", promise
    for path, name in named:
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), name


@pytest.mark.parametrize(
    "page",
    [ROOT / "SECURITY.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: page.name,
)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    """A test that a page names is there, so that no figure loses what holds it."""
    for path, name in _TEST_NAME.findall(page.read_text("utf-8")):
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), name


@pytest.mark.parametrize("folder", ["attacks", "faults"])
def test_each_attack_and_fault_stands_on_the_page(folder: str) -> None:
    """The security page names every test of these folders, so that none is there without its promise."""
    named = set(_TEST_NAME.findall((ROOT / "docs/security.md").read_text("utf-8")))
    for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE):
            assert (f"tests/{folder}/{path.name}", name) in named


def named_lines() -> set[str]:
    """Return the names of lines of the log: those that modules write themselves, and those that events have."""
    package = ROOT / "src/otpmail"
    modules = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    written = re.findall(
        r'"event": "([a-z-]+)"|\blog_event\([^",]+, "([a-z-]+)"|logging\.[A-Z]+,\s+"([a-z-]+)",', modules
    )
    observed = [
        name
        for module in ("logs", "learned", "calls", "suppressed")
        for name in re.findall(r'"([a-z]+(?:-[a-z]+)+)"', (package / f"telemetry/{module}.py").read_text("utf-8"))
    ]
    return {name for names in written for name in names if name} | set(observed)


def test_each_line_of_the_log_is_explained() -> None:
    """The pages of logs and stores name each event of the log."""
    pages = "".join((ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("logs", "stores"))
    events = named_lines()
    assert len(events) > 70
    assert {"listening", "relay-up", "rate-lowered", "call-refused", "store-fault"} <= events
    assert [event for event in sorted(events) if f"`{event}`" not in pages] == []


def test_no_page_explains_a_line_that_is_gone() -> None:
    """Each event in the first column of the tables of logs.md is in the log."""
    rows = re.findall(r"(?m)^\| Line \|.*\n\|---.*\n((?:\|.*\n)+)", (ROOT / "docs/logs.md").read_text("utf-8"))
    shown = {
        name for table in rows for row in table.splitlines() for name in re.findall(r"`([a-z-]+)`", row.split(" | ")[0])
    }
    assert len(shown) > 50
    assert shown <= named_lines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_takes_a_port_of_dev(page: Path) -> None:
    """A service that a page starts may have `otpmail dev` beside it, whose calls are on 40700 and inbox on 40701."""
    assert re.findall(r"\bPORT=(4070[01])\b", page.read_text("utf-8")) == []


def test_readme_is_short() -> None:
    """The README has at most 130 lines: everything else has a page."""
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130


def test_the_readme_says_where_http_is() -> None:
    """The README's first call is over HTTP, which `otpmail serve` has only with a setting: its table has that one."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert "localhost:40701/otpmail.v1.OtpService/SendCode" in text
    assert "\n| `HTTP_PORT` | none; `PORT` + 1 in `otpmail dev` |" in text
    assert "HTTP_PORT" in text[text.index("otpmail serve\n```") : text.index("## Settings")]


def test_each_example_is_explained() -> None:
    """The page of the examples has a row for each of them, with what runs it and the test that does."""
    rows = re.findall(r"^\| \[.* \|$", (ROOT / "examples/README.md").read_text("utf-8"), re.MULTILINE)
    for example in (ROOT / "examples").iterdir():
        named = [row for row in rows if row.startswith(f"| [{example.name}")]
        assert named or example.name in {"README.md", "__pycache__"}, example.name
    for row in rows:
        assert len(row.strip("| ").split(" | ")) == 4, row
        assert _TEST_NAME.search(row), row


@pytest.mark.parametrize("page", ["README.md", "docs/callers.md"])
def test_what_a_page_saves_in_a_clone_is_ignored(page: str) -> None:
    """A program that a page has people save in their clone is neither untracked nor linted there."""
    saved = re.findall(r"[Ss]ave (?:it|this|this one) as `([^`]+)`", (ROOT / page).read_text("utf-8"))
    assert saved
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    excluded = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["extend-exclude"]
    for name in saved:
        assert f"/{name}" in ignored
        assert name in excluded


def test_the_readme_names_the_tested_pythons() -> None:
    """The README names the versions of Python that pyproject.toml does, which `scripts/test-pythons` tests."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    versions = [name.rpartition(" ")[2] for name in classifiers if name.startswith("Programming Language :: Python ::")]
    named = f"({', '.join(versions[:-1])} and {versions[-1]} are tested)"
    assert named in (ROOT / "README.md").read_text("utf-8")


def test_figures_are_those_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    """Each table of figures in a page is what `benchmarks.report.pages` writes from the committed results."""
    assert pages.main(["--check"]) == 0, capsys.readouterr().out
