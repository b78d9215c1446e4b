"""What a service counts, for Prometheus: over all processes where PROMETHEUS_MULTIPROC_DIR names a folder."""

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = Histogram(
    "recbole_dsl_request_duration_seconds",
    "Time from a request to its answer.",
    ["path", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
LOADS = Counter("recbole_dsl_artifact_loads", "Versions of the artifact, by what became of them.", ["result"])
LOADED_AT = Gauge(
    "recbole_dsl_artifact_loaded_timestamp_seconds",
    "When the artifact was last loaded.",
    multiprocess_mode="mostrecent",
)


def text() -> bytes:
    """All of it in Prometheus' text format."""
    registry = REGISTRY
    if FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return generate_latest(registry)
