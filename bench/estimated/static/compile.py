"""Compiling for a TPU that is not there, with libtpu's dump of the bundles."""

import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ....train.errors import UsageError, unknown_name
from ...measured.peak_memory import peak_bytes
from .chips import CHIPS

if TYPE_CHECKING:
  import jax

# Compiling needs no TPU, but libtpu looks for one, and for others who use it.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Without the expression the dump of one kernel has 50 to 160 MB.
_FLAGS = (
  "--xla_jf_dump_llo_text=true",
  "--xla_jf_dump_hlo_text=false",
  "--xla_jf_dump_llo_pass_label_regex=(final_bundles|deduplication"
  "|static-per-bundle-utilization|overlay-graph)",
)
_numbers = itertools.count()
_folder: tempfile.TemporaryDirectory[str] | None = None


class Compilation(NamedTuple):
  """A compiled program.

  Attributes:
    hlo: The compiled HLO text.
    seconds: What compiling took, tracing and lowering not included.
    peak_bytes: HBM that it takes on a core, its code included.
    folder: Holds what libtpu dumped.
  """

  hlo: str
  seconds: float
  peak_bytes: int
  folder: Path


def lowered_for(
  function: Callable[..., Any],
  *args: Any,
  chip: str,
  free_layouts: bool = False,
  donate: Sequence[int] = (),
) -> "jax.stages.Lowered":
  """A function of one core, lowered and ready to be compiled.

  Args:
    function: To be jitted; it is traced for the chip.
    *args: Trees of `jax.ShapeDtypeStruct`.
    chip: One of `CHIPS`.
    free_layouts: The compiler chooses the layouts of arguments and results;
      otherwise they are row-major.
    donate: Which arguments the results may overwrite.

  Raises:
    UsageError: The chip is not known, or libtpu is missing.
  """
  if chip not in CHIPS:
    raise unknown_name("chip", chip, CHIPS)
  return _lower(_fresh(function), args, _device(chip), free_layouts, donate)


@contextlib.contextmanager
def compiled(lowered: "jax.stages.Lowered") -> Iterator[Compilation]:
  """Compiles a program; what libtpu dumps of it is deleted on leaving.

  Raises:
    UsageError: libtpu is missing or dumps nothing, or the program does not fit
      into HBM.
  """
  folder = _dump_folder()
  try:
    with _compilation_cache_off():
      start = time.perf_counter()
      executable = _compile(lowered)
      seconds = time.perf_counter() - start
    if not any(folder.glob("*-final_bundles.txt")):
      raise UsageError(
        f"libtpu {libtpu_version()} dumped no bundles: either this process "
        "loaded it before, or it no longer knows --xla_jf_dump_to (0.0.44 to "
        "0.0.52 do)"
      )
    yield Compilation(
      executable.as_text() or "", seconds, peak_bytes(executable), folder
    )
  finally:
    for path in folder.iterdir():
      path.unlink()


def _compile(lowered: "jax.stages.Lowered") -> "jax.stages.Compiled":
  import jax

  try:
    return lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    match = re.search(r"hbm\. (Used \S+ of \S+) hbm", str(error))
    if not match:
      raise
    raise UsageError(
      f"the program does not fit into HBM: {match[1]}; take fewer images a core"
    ) from error


def _dump_folder() -> Path:
  """The folder of this process; libtpu reads its flags once, when loaded."""
  global _folder
  if importlib.util.find_spec("libtpu") is None:
    raise UsageError(
      "judging programs for a TPU needs its compiler, libtpu, which is not "
      "installed: pip install 'podscale[tpu]'"
    )
  if _folder is None:
    _folder = tempfile.TemporaryDirectory(prefix="podscale-bundles-")
    for name, value in _ENVIRONMENT.items():
      os.environ.setdefault(name, value)
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    flags = (given, f"--xla_jf_dump_to={_folder.name}", *_FLAGS)
    os.environ["LIBTPU_INIT_ARGS"] = " ".join(flags).strip()
  return Path(_folder.name)


def _device(chip: str) -> "jax.Device":
  """A core that can be compiled for, but not used."""
  return slice_devices(CHIPS[chip].topology)[0]


def slice_devices(topology: str) -> "list[jax.Device]":
  """The cores of a TPU slice, which can be compiled for, but not used.

  Args:
    topology: Chip and sides of the slice, such as "v3:16x32" (1,024 cores).

  Raises:
    UsageError: libtpu is missing, or does not know the topology.
  """
  from jax.experimental import topologies

  _dump_folder()
  try:
    description = topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).partition("\n")[0]
    raise UsageError(
      f"libtpu {libtpu_version()} does not compile for {topology}: {reason}"
    ) from error
  return description.devices


def _lower(function, args, device, free_layouts, donate):
  """Traces for a device that can be compiled for only."""
  import jax
  from jax.experimental.layout import Format, Layout

  sharding = jax.sharding.SingleDeviceSharding(device)

  def layout(x):
    order = Layout.AUTO if free_layouts else Layout(tuple(range(x.ndim)))
    return Format(order, sharding)

  with _traced_for(device):
    results = jax.eval_shape(function, *args)
    jitted = jax.jit(
      function,
      in_shardings=jax.tree.map(layout, args),
      out_shardings=jax.tree.map(layout, results),
      donate_argnums=tuple(donate),
    )
    return jitted.lower(*args)


def _traced_for(device: "jax.Device") -> contextlib.AbstractContextManager:
  import jax

  kind = jax.sharding.AbstractDevice(
    device_kind=device.device_kind, num_cores=1, platform="tpu"
  )
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=kind)
  return jax.sharding.use_abstract_mesh(mesh)


def target(chip: str) -> contextlib.AbstractContextManager:
  """In this context ops are traced and described for a chip.

  Args:
    chip: One of `CHIPS`.

  Raises:
    UsageError: libtpu is missing.
  """
  return _traced_for(_device(chip))


def _fresh(function: Callable[..., Any]) -> Callable[..., Any]:
  """The function under a new name, so that no cache has it compiled."""

  def judged(*args: Any) -> Any:
    return function(*args)

  judged.__name__ = f"judged_{next(_numbers)}"
  return judged


@contextlib.contextmanager
def _compilation_cache_off() -> Iterator[None]:
  """Nothing is dumped of what comes from the cache."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  before = jax.config.jax_enable_compilation_cache
  compilation_cache.reset_cache()
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    yield
  finally:
    compilation_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", before)


def libtpu_version() -> str:
  """The version that is installed."""
  return importlib.metadata.version("libtpu")


def compiler() -> dict[str, str]:
  """What compiles here, for the rows of a benchmark: figures depend on it."""
  return {"libtpu": libtpu_version()}
