"""Marks of tests that compile for a TPU and need libtpu."""

import importlib.util

import pytest

NEEDS_LIBTPU = [
  pytest.mark.libtpu,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU's compiler, is not installed",
  ),
]
