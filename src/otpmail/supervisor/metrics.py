"""The metrics of all processes of a service as one registry, with those of the supervisor itself."""

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from otpmail.supervisor.merge import Ended, Family, merge, snapshot


class MergedMetrics:
    """Keeps `registry` at what `refresh` has merged. `running` returns how many processes run."""

    def __init__(self, running: Callable[[], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as in `telemetry.metrics`
        self.registry = CollectorRegistry(auto_describe=True)
        self._own = own = CollectorRegistry()
        self._restarts = Counter("process_restarts", "Processes started again.", namespace="otpmail", registry=own)
        Gauge("processes", "Processes that run.", namespace="otpmail", registry=own).set_function(running)
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        GCCollector(registry=own)
        self._ended = Ended()
        self._merged = _Merged()
        self.registry.register(self._merged)

    def __repr__(self) -> str:
        return f"<MergedMetrics {len(self._merged.families)} families, {self._ended!r}>"

    def add_ended(self, families: Iterable[Family]) -> None:
        """Keep what a process counted that has ended, by its last snapshot."""
        self._ended.add(families)

    def count_restart(self) -> None:
        """Count a process that is started again."""
        self._restarts.inc()

    def refresh(self, snapshots: Iterable[list[Family]]) -> None:
        """Merge the latest snapshots of the processes that run."""
        running = [families for families in snapshots if families]
        self._merged.families = merge([*running, self._ended.snapshot(), snapshot(self._own)], len(running))
        self.registry.unregister(self._merged)
        self.registry.register(self._merged)  # a registry learns the names of families only then


class _Merged(Collector):
    """Returns the families that were merged last."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        return self.families
