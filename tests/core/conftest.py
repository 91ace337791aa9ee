"""Hypothesis without deadlines: the first call of a kernel compiles, which is not flakiness."""

import os

from hypothesis import settings

settings.register_profile("core", deadline=None, max_examples=60)
settings.register_profile("core-nightly", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "core"))
