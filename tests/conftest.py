"""Settings of the whole suite."""

import os

from hypothesis import HealthCheck, settings

# Several processes test at a time: with as many threads as there are processors each, they would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("igvg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("igvg")
