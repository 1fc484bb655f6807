"""Merge the metric families of several workers into those of one service.

Counters and histograms are summed. Up-down counters, such as how many messages are being handled, are summed as well.
Gauges, such as a backlog, which each worker measures for the whole service, take the largest value. Of information,
such as ``target_info``, the first worker's is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Metric

SUM: Final = "sum"
LARGEST: Final = "largest"
FIRST: Final = "first"

_Labels = tuple[tuple[str, str], ...]
_COMBINE: Final[dict[str, Callable[[float, float], float]]] = {SUM: operator.add, LARGEST: max}


@dataclass(slots=True)
class Family:
    """A metric family.

    Attributes:
        name: Its name, without the suffix of its samples.
        text: Its description.
        type: "counter", "histogram", "gauge" or "info".
        unit: Its unit, or "".
        rule: How values of several workers are merged: `SUM`, `LARGEST` or `FIRST`.
        samples: Values by the sample's name and its labels.
    """

    name: str
    text: str
    type: str
    unit: str
    rule: str
    samples: dict[tuple[str, _Labels], float]

    @property
    def is_total(self) -> bool:
        """Whether the values only grow, so that those of a worker that has ended still count."""
        return self.type in ("counter", "histogram")


def from_metrics(metrics: Iterable[Metric], largest: Container[str]) -> list[Family]:
    """Convert what a registry of prometheus_client collected.

    Args:
        metrics: The collected families.
        largest: The names of the gauges of which the largest value counts, with or without their unit.
    """
    families: dict[str, Family] = {}
    for metric in metrics:
        rule = SUM
        if metric.type == "info":
            rule = FIRST
        elif metric.type == "gauge":
            bare = metric.name.removesuffix(f"_{metric.unit}") if metric.unit else metric.name
            rule = LARGEST if metric.name in largest or bare in largest else SUM
        family = Family(metric.name, metric.documentation, metric.type, metric.unit, rule, {})
        family = families.setdefault(metric.name, family)
        # The exporter repeats a family, with older values first, when it was asked for metrics several times before.
        if family.type == metric.type:
            family.samples.update({(one.name, tuple(sorted(one.labels.items()))): one.value for one in metric.samples})
    return list(families.values())


def to_metrics(families: Iterable[Family]) -> list[Metric]:
    """Convert families to those of prometheus_client, to be written in a format of Prometheus."""
    metrics = []
    for family in families:
        metric = Metric(family.name, family.text, family.type, family.unit)
        for (name, labels), value in family.samples.items():
            metric.add_sample(name, dict(labels), value)
        metrics.append(metric)
    return metrics


def to_json(families: Iterable[Family]) -> list[Any]:
    """Return families as a value for JSON."""
    return [
        [one.name, one.text, one.type, one.unit, one.rule, [[*key, value] for key, value in one.samples.items()]]
        for one in families
    ]


def from_json(value: list[Any]) -> list[Family]:
    """Return the families of a value that `to_json` made.

    Raises:
        ValueError, TypeError, AttributeError: It is another value.
    """
    families = []
    for name, text, kind, unit, rule, samples in value:
        read = {
            (str(sample), tuple((str(key), str(word)) for key, word in labels)): float(number)
            for sample, labels, number in samples
        }
        Metric(name, text, kind, unit)  # raises for a name or a type that Prometheus does not have
        families.append(Family(name, text, kind, unit, str(rule), read))
    return families


def totals(families: Iterable[Family]) -> list[Family]:
    """Return the families that only grow."""
    return [family for family in families if family.is_total]


def merge(workers: Iterable[Iterable[Family]]) -> list[Family]:
    """Merge the families of several workers by the rule of each; those of the first worker come first."""
    merged: dict[str, Family] = {}
    for families in workers:
        for family in families:
            known = merged.get(family.name)
            if known is None:
                copy = Family(family.name, family.text, family.type, family.unit, family.rule, dict(family.samples))
                merged[family.name] = copy
            elif known.type == family.type and known.rule in _COMBINE:
                combine = _COMBINE[known.rule]
                for key, value in family.samples.items():
                    known.samples[key] = combine(known.samples[key], value) if key in known.samples else value
    return list(merged.values())
