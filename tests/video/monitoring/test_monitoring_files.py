"""The board, the alert rules and the page speak of metrics that exist, with the labels that they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from video.engine.queues import QUEUE_OF
from video.models import Status
from video.monitoring import exposition

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "grafana.json").read_text())["panels"]
EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
]
DECLARED = exposition.declared()
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
SAMPLES = {f"{name}{end}": (name, kind) for name, (kind, *_) in DECLARED.items() for end in SUFFIXES[kind]}
#: Values of labels that are a short list of ours.
KNOWN = {
    "stage": {str(one) for one in QUEUE_OF},
    "status": {"2xx", "3xx", "4xx", "5xx", *Status.values},
    "resource": {"slot", "core"},
    "needs_person": {"yes", "no"},
    "state": {"due", "held", "parked", "active", "draining", "quarantined"},
}


def nodes(expression: Any) -> Iterator[Any]:
    found: list[Any] = []
    promql_parser.walk(expression, found.append)
    yield from found


@pytest.mark.parametrize(("name", "text"), EXPRESSIONS)
def test_each_expression_is_of_metrics_that_exist(name: str, text: str) -> None:
    asked = 0
    used: set[str] = set()
    grouped: set[str] = set()
    for node in nodes(promql_parser.parse(text)):
        selector = node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped |= set(node.modifier.labels)
        if not isinstance(selector, promql_parser.VectorSelector):
            continue
        assert selector.name in SAMPLES, f"{name}: there is no {selector.name}"
        metric, kind = SAMPLES[selector.name]
        labels = set(DECLARED[metric][2]) | ({"le"} if kind == "histogram" else set())
        used |= labels
        asked += 1
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{name}: {metric} has no label {matcher.name}"
            if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
                assert matcher.value in KNOWN.get(matcher.name, {matcher.value}), f"{name}: {matcher.value}"
        if isinstance(node, promql_parser.MatrixSelector):
            assert kind != "gauge", f"{name}: rate() of {metric}, which may fall"
    assert asked, name
    assert grouped <= used, f"{name}: nothing has {grouped - used}"


def test_each_alert_says_what_and_what_to_do() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) >= 10
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert all(rule["annotations"][part].endswith(".") for part in ("summary", "description"))
    assert all(panel["description"] and panel["title"] for panel in PANELS)


def table() -> str:
    """docs/monitoring.md's table, from the code."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{one}`' for one in labels if one not in exposition.OF_PROCESS) or '–'} "
        f"| {'each process' if 'process' in labels else 'the tables'} | {told} |"
        for name, (kind, told, labels) in DECLARED.items()
    ]
    return "\n".join(("| metric | type | labels | of | what it is |", "|---|---|---|---|---|", *rows))


def test_the_page_has_every_metric() -> None:
    assert table() in (ROOT / "docs" / "monitoring.md").read_text(), f"docs/monitoring.md should have:\n{table()}"


def test_names_are_those_that_prometheus_asks_for() -> None:
    """https://prometheus.io/docs/practices/naming/: one prefix, base units at the end, `_total` for counters alone."""
    for name, (kind, told, _) in DECLARED.items():
        assert name.startswith("reelworks_")
        assert name.endswith("_total") == (kind == "counter"), name
        assert not name.endswith(("_ms", "_milliseconds", "_mb", "_minutes", "_count", "_sum", "_bucket")), name
        assert told.endswith("."), name
