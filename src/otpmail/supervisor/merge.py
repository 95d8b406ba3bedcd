"""Merges the metrics of several processes: counters and histograms are summed, gauges by their meaning."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Sequence[Sequence[str]], float]
"""A sample in a message: its name, its labels and its value."""

Family = tuple[str, str, str, list[Sample]]
"""A family in a message: name, documentation, type, samples. JSON makes lists of the tuples."""

_COUNTING = frozenset({"counter", "histogram", "summary"})
"""The types whose values only grow, so that those of a process that has ended stay in the sums."""

OTHER_THAN_SUMS: Mapping[str, Callable[[Iterable[float]], float]] = MappingProxyType(
    {
        "otpmail_ready": max,
        "otpmail_relay_up": max,  # up while it is up for any process
        "otpmail_tls_certificate_not_after_timestamp_seconds": min,  # one may have read the new file already
        "process_max_fds": min,  # a limit of each process, so that the fullest one counts
        "process_open_fds": max,
        "process_start_time_seconds": min,
        "python_info": max,
    }
)
"""How the gauges are merged that are no sums."""

ABSENT_WITHOUT_LIMIT = frozenset({"otpmail_rate_limit"})
"""Gauges of limits: where one process has none, neither have all together."""


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """Return what a registry collects now, as it can be sent."""
    families = []
    for family in registry.collect():
        samples: list[Sample] = [(sample.name, tuple(sample.labels.items()), sample.value) for sample in family.samples]
        families.append((family.name, family.documentation, family.type, samples))
    return families


class Ended:
    """The counts of processes that have ended, so that no sum falls when a process is started again."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str]] = {}
        self._values = defaultdict[tuple[str, str, Labels], float](float)

    def __repr__(self) -> str:
        return f"<Ended {len(self._values)} samples>"

    def add(self, families: Iterable[Family]) -> None:
        """Add the last snapshot of a process."""
        for name, documentation, kind, samples in families:
            if kind in _COUNTING:
                self._families[name] = documentation, kind
                for sample, labels, value in samples:
                    self._values[name, sample, _labels(labels)] += value

    def snapshot(self) -> list[Family]:
        """Return the sums, as one more process would send them."""
        samples: dict[str, list[Sample]] = {name: [] for name in self._families}
        for (name, sample, labels), value in self._values.items():
            samples[name].append((sample, labels, value))
        return [(name, *self._families[name], samples[name]) for name in self._families]


def merge(snapshots: Iterable[Iterable[Family]], processes: int) -> list[Metric]:
    """Return the families of all snapshots, among which so many `processes` of the service have one."""
    merged: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, Labels], list[float]]] = {}
    for families in snapshots:
        for name, documentation, kind, samples in families:
            merged.setdefault(name, Metric(name, documentation, kind))
            found = values.setdefault(name, {})
            for sample, labels, value in samples:
                found.setdefault((sample, _labels(labels)), []).append(value)
    for name, metric in merged.items():
        combine = OTHER_THAN_SUMS.get(name, sum)
        for (sample, labels), parts in values[name].items():
            if name not in ABSENT_WITHOUT_LIMIT or len(parts) == processes:
                metric.add_sample(sample, dict(labels), combine(parts))
    return list(merged.values())


def _labels(labels: Iterable[Sequence[str]]) -> Labels:
    return tuple((name, value) for name, value in labels)
