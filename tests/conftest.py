"""For all tests: nothing is judged by how long it took."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)  # a slow machine, or a busy one, is no fault of what is tested
settings.load_profile("no-deadline")
