"""The mark of tests that compile for a TPU, which they need libtpu for."""

import importlib.util

import pytest

NEEDS_LIBTPU = [
  pytest.mark.libtpu,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU's compiler, is not installed",
  ),
]
