"""The signals that ask a program to stop: its workers block them, as the process that started these ends them."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Clusters send SIGUSR1 before a time limit; SIGHUP comes when a terminal, or the connection to it, is closed."""
