"""Settings of the whole suite, and the one trained network of a session."""

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.pipeline_runs import run_pipeline

# Several processes test at a time: with as many threads as there are processors each, they would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Workers of pytest-xdist have a width, which commands would take for that of a terminal.
os.environ.pop("COLUMNS", None)

# How long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("igvg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("igvg")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders `published`, `shards`, `run`, `found` and `scores` of the four stages; tests only read them.

    The processes of pytest-xdist share one.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with (base / "pipeline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "pipeline" / "scores" / "artifact.json").exists():
            run_pipeline(base / "pipeline")
    return base / "pipeline"
