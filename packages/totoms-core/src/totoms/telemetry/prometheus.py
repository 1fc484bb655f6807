"""Serve metrics to Prometheus, on a port of its own: ``OTEL_METRICS_EXPORTER=prometheus``.

All workers of a service share one port. The worker that has it merges the metrics of all of them
(:mod:`totoms.telemetry.families`), which each writes to a folder every second
(:mod:`totoms.telemetry.worker_files`). When that worker ends, another takes the port.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import Gauge, MetricsData
from prometheus_client import CollectorRegistry, Metric

from totoms.forks import in_forked_child
from totoms.logging.describe import describe_error
from totoms.logging.logger import TotoLogger
from totoms.telemetry.families import Family, from_metrics, merge, to_metrics
from totoms.telemetry.metrics_server import PATH, MetricsServer

if TYPE_CHECKING:
    from totoms.telemetry.worker_files import WorkerFiles

HOST_VARIABLE: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
PORT_VARIABLE: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9464
INTERVAL: Final = 1.0
"""The least seconds between two snapshots of a worker, and between two attempts to get the port."""
MOST_LOAD: Final = 0.01
"""The part of a processor that snapshots may take. With very many metrics there are fewer of them."""
_SHARING: Final = "share its metrics with other workers"


def open_listener(logger: TotoLogger) -> PrometheusListener:
    """Return a listener that has started. Give its `reader` to the process's ``MeterProvider``.

    Args:
        logger: The service's logger.
    """
    listener = PrometheusListener(logger)
    listener.start()
    return listener


class PrometheusListener:
    """Serves the metrics of one reader, merged with those of the other workers.

    The address is that of ``OTEL_EXPORTER_PROMETHEUS_HOST`` and ``OTEL_EXPORTER_PROMETHEUS_PORT``, by default
    127.0.0.1 and 9464.

    Args:
        logger: The service's logger. Workers with the same service name share a port.

    Attributes:
        reader: The reader. When its provider is shut down, the listener is closed.
    """

    def __init__(self, logger: TotoLogger) -> None:
        self.reader = _Reader(self)
        self._logger = logger
        self._host = os.environ.get(HOST_VARIABLE) or DEFAULT_HOST
        self._port = _port(logger)
        self._begin()

    def _begin(self) -> None:
        self._files: WorkerFiles | None = None
        self._server: MetricsServer | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="totoms metrics", daemon=True)
        self._problems: dict[str, str] = {}

    def start(self) -> None:
        """Listen, unless another worker does. Never raises: what goes wrong is logged, and tried again each second."""
        _started.add(self)
        with self._lock:
            self._attempt(self._join, _SHARING)
            self._attempt(self._listen, self._listening)
        self._thread.start()

    def flush(self) -> None:
        """Write this worker's snapshot. Also become the worker that listens, if no other does."""
        with self._lock:
            self._attempt(self._share, _SHARING)
            self._attempt(self._listen, self._listening)

    def close(self) -> None:
        """Write the last snapshot, and stop listening. Blocks for a moment."""
        if not self._thread.is_alive():
            return
        self._stopped.set()
        self._thread.join()
        self.flush()
        if self._server is not None:
            self._server.stop()
        with self._lock:
            files, self._files = self._files, None
        if files is not None:
            files.close()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all workers. Called by the server for each request."""
        with self._lock:
            workers = [self.reader.families()]
            if self._files is not None:
                try:
                    workers += self._files.read_others()
                    self._files.write(workers[0])  # what was shown must not be lost when this worker is killed
                except OSError as error:
                    self._log_problem(_SHARING, error)
        return to_metrics(merge(workers))

    def _run(self) -> None:
        pause = INTERVAL
        while not self._stopped.wait(pause):
            begun = time.thread_time()
            self.flush()
            pause = max(INTERVAL, (time.thread_time() - begun) / MOST_LOAD)

    @property
    def _listening(self) -> str:
        return f"serve metrics for Prometheus at {self._host}:{self._port}"

    def _attempt(self, step: Callable[[], None], what: str) -> None:
        try:
            step()
        except Exception as error:
            self._log_problem(what, error)
        else:
            self._problems.pop(what, None)

    def _join(self) -> None:
        if self._files is None:
            try:
                from totoms.telemetry.worker_files import WorkerFiles
            except ImportError:  # Windows has no fcntl: each worker is alone there
                return
            self._files = WorkerFiles(self._logger.api_name, self._host, self._port)

    def _share(self) -> None:
        self._join()
        if self._files is None:
            return
        try:
            self._files.write(self.reader.families())
            if self._server is not None:
                self._files.fold()
        except FileNotFoundError:  # the folder was deleted
            self._files.close()
            self._files = None
            raise

    def _listen(self) -> None:
        if self._stopped.is_set():
            return
        leads = self._files is None or self._files.try_to_lead()
        if leads and self._server is None:
            on_error = partial(self._log_problem, "collect its metrics")
            self._server = MetricsServer(self._host, self._port, self, on_error)
            self._server.start()
            self._logger.log("metrics", f"Metrics for Prometheus: http://{self._host}:{self._port}{PATH}")

    def _log_problem(self, what: str, error: Exception) -> None:
        text = f"The service cannot {what}; it goes on, and tries again each second: {describe_error(error)}"
        if text != self._problems.get(what):
            self._problems[what] = text
            self._logger.log("metrics", text, "ERROR")

    def _leave_in_child(self) -> None:
        """Close the files and the port of the parent in a forked child, which would otherwise keep them for ever."""
        if self._files is not None:
            self._files.close()
        if self._server is not None:
            self._server.socket.close()
        self._begin()


class _Reader(PrometheusMetricReader):
    """Collects metrics when asked to, and remembers which of them are gauges and not up-down counters."""

    def __init__(self, listener: PrometheusListener) -> None:
        self._listener = listener
        self._own_registry = CollectorRegistry()
        self._gauges: set[str] = set()
        super().__init__(registry=self._own_registry, scope_info_enabled=False)

    def families(self) -> list[Family]:
        """Return the metrics of now."""
        return from_metrics(self._own_registry.collect(), self._gauges)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Write a snapshot, as the provider asks for at the end of a service."""
        self._listener.flush()
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Close the listener."""
        self._listener.close()
        super().shutdown(timeout_millis, **kwargs)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        # The method that the SDK has every reader implement. Prometheus has one type for both.
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                names = (metric.name for metric in scope.metrics if isinstance(metric.data, Gauge))
                self._gauges.update(_NOT_IN_NAMES.sub("_", name) for name in names)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


_NOT_IN_NAMES: Final = re.compile("[^a-zA-Z0-9:]+")
_started: WeakSet[PrometheusListener] = WeakSet()


def _port(logger: TotoLogger) -> int:
    text = os.environ.get(PORT_VARIABLE, "").strip()
    if text.isdecimal() and 0 < int(text) <= 65535:
        return int(text)
    if text:  # OpenTelemetry asks for a warning, and to go on as if it were not set
        logger.log("metrics", f"{PORT_VARIABLE} must be a number from 1 to 65535: {DEFAULT_PORT} is used.", "WARNING")
    return DEFAULT_PORT


def _leave() -> None:
    for listener in list(_started):
        listener._leave_in_child()


in_forked_child(_leave)
