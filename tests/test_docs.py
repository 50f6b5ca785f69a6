"""The pages keep up with the code: settings, dependencies, commands and checks are told, and links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from config.names import KNOWN
from providers import catalogue, ranking
from providers.dialect.faults import DIRECTIVES
from providers.registry import PROVIDERS
from providers.simulator.server.control import HELP
from video.models import Generation, Stage, Status, VideoTask

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
# Names that a tool of ours sets for its own children, and conventions of others that need no word from us.
NOT_SETTINGS = {"DJANGO_SETTINGS_MODULE", "PATH", "PYTHONUNBUFFERED", "SUDO_USER"}
OF_TESTS = {"REELWORKS_REQUIRE_BROWSER"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def text_of(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def written(value: str) -> ast.expr:
    return ast.parse(repr(value), mode="eval").body


def settings_read() -> dict[str, ast.expr | None]:
    """Names that settings.py reads from outside, with their defaults where they are written there; people.py and
    the others are parts of it."""
    found: dict[str, ast.expr | None] = {}
    parts = ("settings", "people", "money", "telemetry", "alerts")
    for call in [one for name in parts for one in calls(ROOT / "config" / f"{name}.py")]:
        name = ast.unparse(call.func)
        values = [*call.args, None, None, None]
        if name.startswith("read.") and name != "read.load":
            found[text_of(call.args[1])] = values[2]
        elif name in {"env.str", "env.bool", "env.int"}:
            found[text_of(call.args[0])] = next((k.value for k in call.keywords if k.arg == "default"), None)
        elif name == "_each_provider":
            plain = text_of(call.args[0])
            found |= {plain: values[1], **{f"{provider.prefix}{plain}": None for provider in PROVIDERS}}
    for provider in PROVIDERS:  # what the registry makes the settings read
        found |= {provider.keys_setting: None, provider.base_url_setting: written(provider.default_base_url)}
        if provider.callbacks is not None:
            found[provider.callbacks.setting.name] = written(provider.callbacks.setting.default)
    found.pop("", None)
    return found


def environment_read() -> set[str]:
    """Names that anything else reads: os.environ in our packages, and ${NAME:-…} in the Procfile."""
    reads = re.compile(r'os\.environ(?:\.get\(|\[)"([A-Z_]+)"\]?(?!\s*=[^=])')
    found = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "Procfile").read_text()))
    for package in ("config", "video", "providers", "media_pipeline"):
        for path in (ROOT / package).rglob("*.py"):
            found |= set(reads.findall(path.read_text()))
    return found - NOT_SETTINGS


def rows() -> dict[str, str]:
    """Name → its row of a table on the configuration page."""
    found = {}
    for line in CONFIGURATION.splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([A-Z][A-Z_]+)`", line.split("|")[1]):
                assert name not in found, f"{name} is documented twice"
                found[name] = line
    return found


def test_every_setting_is_documented_and_known_by_its_name() -> None:
    """What the code reads, the rows of the page, and the names by which a slip in another one is told."""
    assert (settings_read().keys() | environment_read()) - KNOWN == set()
    assert set(rows()) == KNOWN


def test_nothing_is_documented_that_nobody_reads() -> None:
    assert set(rows()) - (set(settings_read()) | environment_read() | OF_TESTS) == set()


@pytest.mark.parametrize("name", sorted(name for name, default in settings_read().items() if default is not None))
def test_defaults_are_those_of_the_code(name: str) -> None:
    default = settings_read()[name]
    assert default is not None
    cell = rows()[name].split("|")[2]
    try:
        # A conditional default has both values on the page; an expression such as 2 * 1024**3 is worked out.
        parts = [default.body, default.orelse] if isinstance(default, ast.IfExp) else [default]
        values = [eval(compile(ast.Expression(part), "default", "eval"), {"__builtins__": {}}) for part in parts]
    except NameError:
        return  # depends on another setting; the page says so in words
    for value in values:
        said = {"": "", True: "1", False: "0"}.get(value, str(value)) if isinstance(value, str | bool) else f"{value}"
        assert said in cell, f"{name}: the code's default is {value!r}, the page says {cell.strip()}"


def test_defaults_are_those_of_the_procfile() -> None:
    for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", (ROOT / "Procfile").read_text()):
        assert default in rows()[name].split("|")[2], f"{name}: the Procfile's default is {default}"


def test_every_model_is_on_its_page_and_no_other() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 11]
    told = {line.split("|")[1].strip(" `"): line for line in lines}
    assert set(told) == set(catalogue.BY_ID)
    for model in catalogue.MODELS:
        for price in model.price_usd_per_s.values():
            assert str(price) in told[model.id], f"{model.id}: {price}"
    assert catalogue.CHECKED_ON in page
    for alias in catalogue.ALIASES:
        assert f"`{alias}`" in page or alias.startswith("fal-ai/pika/"), alias


def test_every_directive_of_the_simulator_is_told_and_no_other() -> None:
    page = (ROOT / "docs" / "simulator.md").read_text()
    told = re.findall(r"^\| `([a-z_]+)` \| (?:submit|job|look|call-back|download) \|", page, re.MULTILINE)
    assert set(told) == set(DIRECTIVES)
    for call in HELP:
        assert f"| `{call}` |" in page, call


def test_every_weight_of_the_choice_is_told() -> None:
    page = (ROOT / "docs" / "why" / "choosing-a-model.md").read_text()
    for policy, weights in ranking.WEIGHTS.items():
        row = [f"{weight:.2f}" for weight in (weights.price, weights.quality, weights.speed, weights.success)]
        assert f"| `{policy}` | {' | '.join(row)} |" in page


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    for file in ("requirements.in", "requirements-dev.in"):
        for line in (ROOT / file).read_text().splitlines():
            if name := re.match(r"[a-z][a-z0-9-]+", line):
                assert f"| `{name[0]}` |" in page, f"{name[0]} of {file}"


def test_no_dependency_is_explained_that_is_not_there() -> None:
    wanted = (ROOT / "requirements.in").read_text() + (ROOT / "requirements-dev.in").read_text()
    for name in re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{name}\b", wanted, re.MULTILINE), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|    )make ([a-z]+)", page.read_text()))
        assert named <= targets, f"{page.name}: {named - targets}"


def test_every_command_that_is_named_exists() -> None:
    ours = {
        path.stem for app in ("config", "video") for path in (ROOT / app / "management" / "commands").glob("[a-z]*.py")
    }
    django = {"changepassword", "check", "createsuperuser", "migrate"}
    for page in PAGES:
        named = set(re.findall(r"manage\.py ([a-z_]+)", page.read_text()))
        assert named <= ours | django, f"{page.name}: {named - ours - django}"


def test_every_check_is_in_the_operators_table() -> None:
    used = set(re.findall(r'id="(video\.[EW]\d+)"', (ROOT / "video" / "checks.py").read_text()))
    told = set(re.findall(r"^\| `(video\.[EW]\d+)`", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert used == told


def test_changes_have_a_place_for_the_next_release() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


#: The words of the contract, which code, tables and pages share.
CONTRACT_WORDS = {
    "task",
    "run",
    "generation",
    "live",
    "stage",
    "admit",
    "park",
    "claim",
    "resume",
    "sweeper",
    "account",
}


def glossary() -> dict[str, list[str]]:
    """The first cells of each table of the glossary, by heading."""
    found: dict[str, list[str]] = {}
    for part in (ROOT / "docs" / "glossary.md").read_text().split("\n## ")[1:]:
        found[part.splitlines()[0]] = re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
    return found


def test_the_glossary_has_every_word_of_the_contract() -> None:
    assert set(glossary()["Words"]) >= CONTRACT_WORDS


@pytest.mark.parametrize(
    ("heading", "wanted"),
    [
        ("Columns of a task", [field.name for field in VideoTask._meta.concrete_fields]),
        ("Statuses of a task", Status.values),
        ("Stages", Stage.values),
        ("States of an attempt", Generation.State.values),
    ],
)
def test_the_glossary_has_every_word_of_the_tables_and_no_other(heading: str, wanted: list[str]) -> None:
    assert sorted(glossary()[heading]) == sorted(wanted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short_enough_to_read(page: Path) -> None:
    """At most 120 characters; tables, code and pictures may be longer."""
    code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        code = code != line.startswith("```")
        exempt = code or line.startswith(("|", "    ", "!["))
        assert exempt or len(line) <= 120, f"{page.name}:{number} has {len(line)} characters"
