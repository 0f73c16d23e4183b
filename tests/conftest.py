"""Shared by the tests: the tables of known answers, and a hypothesis profile that repeats itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import settings

collect_ignore = ["sample_project"]  # a user's project: test_sample_project.py runs it as one

# Configurations are drawn the same way in every run: a red run can be repeated by its command alone.
settings.register_profile("mcverify", derandomize=True, deadline=None)
settings.load_profile("mcverify")


@pytest.fixture(scope="session")
def known_answers():
    """rows of tests/known_answers/NAME.json."""
    folder = Path(__file__).parent / "known_answers"
    return lambda name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["rows"]
