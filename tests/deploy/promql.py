"""What a PromQL expression names, and whether it is emitted."""

import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql

from tests.deploy.emitted import Series

# Grafana puts durations in their place.
_MACROS = re.compile(r"\$__(rate_interval|interval|range)\b")


def problems(expression: str, emitted: dict[str, Series]) -> list[str]:
    """Metrics, attributes and values in the expression that nothing emits; raises if it does not parse."""
    tree = promql.parse(_MACROS.sub("5m", expression))
    found = [
        problem for selector in _nodes(tree, promql.VectorSelector) for problem in _unknown(selector, emitted)
    ]
    for node, labels in _label_lists(tree):
        for selector in _nodes(node, promql.VectorSelector):
            known = emitted.get(selector.name or "", Series()).values
            found += [f"{selector.name} has no {label}" for label in labels if label not in known]
    return found


def labels_of(expression: str, emitted: dict[str, Series]) -> set[str]:
    """The labels that the result of an expression has."""
    tree = promql.parse(_MACROS.sub("5m", expression))
    aggregations = [labels for node, labels in _label_lists(tree) if isinstance(node, promql.AggregateExpr)]
    if aggregations:
        return {label for labels in aggregations for label in labels} - {"le"}
    selectors = list(_nodes(tree, promql.VectorSelector))
    if any(node.func.name == "absent" for node in _nodes(tree, promql.Call)):
        return set()
    return {label for selector in selectors for label in emitted[selector.name or ""].values}


def _unknown(selector: promql.VectorSelector, emitted: dict[str, Series]) -> Iterator[str]:
    if selector.name not in emitted:
        yield f"nothing emits {selector.name}"
        return
    known = emitted[selector.name].values
    for matcher in selector.matchers.matchers:
        if matcher.name not in known:
            yield f"{selector.name} has no {matcher.name}"
        elif not matcher.value.startswith("$"):
            alternatives = matcher.value.split("|") if "Re" in str(matcher.op) else [matcher.value]
            for value in set(alternatives) - known[matcher.name]:
                yield f"{selector.name} is never emitted with {matcher.name}={value}"


def _label_lists(tree: promql.Expr) -> Iterator[tuple[promql.Expr, list[str]]]:
    for node in _nodes(tree, promql.AggregateExpr):
        if node.modifier:
            yield node, node.modifier.labels
    for node in _nodes(tree, promql.BinaryExpr):
        if node.modifier and node.modifier.matching:
            yield node, node.modifier.matching.labels


def _nodes(tree: promql.Expr, kind: type) -> list[Any]:
    found: list[Any] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, kind):
            found.append(node)

    promql.walk(tree, visit)
    return found
