"""How the metrics of several processes become those of one service."""

import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from otpmail.supervisor.merge import ABSENT_WITHOUT_LIMIT, OTHER_THAN_SUMS, Ended, Family, merge, snapshot
from otpmail.telemetry.gauges import Readings
from otpmail.telemetry.metrics import Metrics


def _registry() -> CollectorRegistry:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as the service does
    return CollectorRegistry()


def _sent(registry: CollectorRegistry) -> list[Family]:
    """Return a snapshot as it arrives."""
    families: list[Family] = json.loads(json.dumps(snapshot(registry)))
    return families


def _samples(*snapshots: list[Family], processes: int = 2) -> dict[str, float]:
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in merge(snapshots, processes)
        for sample in family.samples
    }


def test_counters_and_histograms_are_sums() -> None:
    """Each counter and each bucket is the sum of the same one, by its labels, of all processes."""
    first, second = _registry(), _registry()
    for registry, number in ((first, 1), (second, 2)):
        Counter("mails", "Mails.", ["state"], registry=registry).labels("sent").inc(number)
        Histogram("seconds", "Seconds.", buckets=(1, 2), registry=registry).observe(number)
    Counter("only", "Of one.", registry=second).inc(7)
    samples = _samples(_sent(first), _sent(second))
    assert samples["mails_total[sent]"] == 3
    assert [samples[f"seconds_bucket[{bound}]"] for bound in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert (samples["seconds_sum"], samples["seconds_count"]) == (3, 2)
    assert samples["only_total"] == 7


@pytest.mark.parametrize(
    ("name", "values", "merged"),
    [
        ("otpmail_mails_unsettled", (3, 4), 7),
        ("otpmail_relay_up", (0, 1), 1),
        ("otpmail_relay_up", (0, 0), 0),
        ("process_max_fds", (1024, 512), 512),
        ("process_open_fds", (30, 40), 40),
        ("process_start_time_seconds", (20, 10), 10),
        ("python_info", (1, 1), 1),
        ("otpmail_rate_limit", (2, 3), 5),
    ],
)
def test_a_gauge_is_merged_by_its_meaning(name: str, values: tuple[float, float], merged: float) -> None:
    """Gauges are sums, but for those whose sum would mean nothing."""
    registries = []
    for value in values:
        registries.append(_registry())
        Gauge(name, "A gauge.", registry=registries[-1]).set(value)
    assert _samples(*map(_sent, registries)) == {name: merged}


def test_a_limit_that_one_process_lacks_is_none() -> None:
    """A rate that only one of two processes keeps to does not limit the service."""
    limited, free = _registry(), _registry()
    Gauge("otpmail_rate_limit", "A limit.", registry=limited).set(2)
    assert _samples(_sent(limited), _sent(free)) == {}


def test_what_an_ended_process_counted_stays() -> None:
    """Counters of processes that have ended stay in the sums, and their gauges do not."""
    ended, registry = Ended(), _registry()
    Counter("mails", "Mails.", ["state"], registry=registry).labels("sent").inc(2)
    Gauge("open", "Open.", registry=registry).set(5)
    ended.add(_sent(registry))
    ended.add(_sent(registry))
    assert _samples(ended.snapshot(), _sent(registry)) == {"mails_total[sent]": 6, "open": 5}


def test_merged_metrics_read_as_those_of_one_process() -> None:
    """The merged families of one process are, word for word, what that process shows by itself."""
    registry, again = _registry(), CollectorRegistry(auto_describe=True)
    Counter("mails", "Mails.", ["state"], registry=registry).labels("sent").inc(2)
    Histogram("seconds", "Seconds.", registry=registry).observe(0.3)
    Gauge("open", "Open.", registry=registry).set(5)

    class Merged:
        """Collects them."""

        def collect(self) -> object:
            """Return the families."""
            return merge([_sent(registry)], 1)

    again.register(Merged())  # type: ignore[arg-type]  # it has what a collector needs
    assert generate_latest(again) == generate_latest(registry)


def test_every_gauge_has_a_known_meaning() -> None:
    """Each gauge of the service is a sum on purpose. A new one is added here, or to the table of all others."""
    readings = Readings(
        connections=list, waiting=dict, unsettled=int, unwritten=int, memory=dict, memory_limit=1, ready=bool
    )
    metrics = Metrics(readings)
    gauges = {family.name for family in metrics.registry.collect() if family.type == "gauge"}
    sums = {
        "otpmail_connections_limit",
        "otpmail_connections_open",
        "otpmail_mails_in_flight",
        "otpmail_mails_unsettled",
        "otpmail_mails_waiting",
        "otpmail_memory_bytes",
        "otpmail_memory_limit_bytes",
        "otpmail_store_unwritten",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
    }
    assert gauges - OTHER_THAN_SUMS.keys() - ABSENT_WITHOUT_LIMIT == sums
