"""Eight CPU devices and a strict JAX, set before any test imports it."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests compile much and run little. Without LLVM's optimisation the step of
# the smoke recipe compiles in 12 s instead of 30. Tests and processes share
# compiled programs through the cache.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
)
_cache = tempfile.TemporaryDirectory(prefix="podscale-tests-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name

import jax  # noqa: E402
from support.shares import (  # noqa: E402, F401
  pytest_addoption,
  pytest_collection_modifyitems,
)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
