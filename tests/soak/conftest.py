"""The fixtures of the live tests, for runs of full length."""

from __future__ import annotations

from tests.live.conftest import lab_logs, run_in_lab, unavailable

__all__ = ["lab_logs", "run_in_lab", "unavailable"]
