"""Settings of the whole suite."""

from hypothesis import settings

# How long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("igvg", deadline=None)
settings.load_profile("igvg")
