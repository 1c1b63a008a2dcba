"""Ahead-of-time compiling for TPUs, with libtpu's dump of the bundles."""

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
from ...chips import CHIPS
from ...compiled.peak_memory import peak_bytes

if TYPE_CHECKING:
  import jax

# Without these libtpu looks for a TPU and for other processes that use it.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Without the label expression the dump of one kernel has 50 to 160 MB.
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
    hlo: Compiled HLO text.
    seconds: Time of compiling, without tracing and lowering.
    peak_bytes: Bytes of HBM on a core, with the program's code.
    folder: Folder with libtpu's dump.
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
  """Lower a function for one core.

  Args:
    function: Function without `jax.jit`; it is traced for the chip.
    *args: Trees of `jax.ShapeDtypeStruct`.
    chip: One of `CHIPS`.
    free_layouts: True if the compiler chooses the layouts of arguments and
      results; False for row-major ones.
    donate: Indices of the arguments that the results may overwrite.

  Raises:
    UsageError: The chip is unknown, or libtpu is missing.
  """
  if chip not in CHIPS:
    raise unknown_name("chip", chip, CHIPS)
  return _lower(_fresh(function), args, _device(chip), free_layouts, donate)


@contextlib.contextmanager
def compiled(lowered: "jax.stages.Lowered") -> Iterator[Compilation]:
  """Compile a program, and delete libtpu's dump when the context ends.

  Raises:
    UsageError: libtpu is missing or dumps nothing, or the program does not fit
      in HBM.
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
        "loaded libtpu before, then estimate first; or this version does not "
        "know --xla_jf_dump_to, then install 0.0.44 to 0.0.52"
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
      f"the program does not fit in HBM: {match[1]}; use a smaller batch a core"
    ) from error


def _dump_folder() -> Path:
  """Return this process's folder; libtpu reads its flags once, when loaded."""
  global _folder
  if importlib.util.find_spec("libtpu") is None:
    raise UsageError(
      "estimates for a TPU need its compiler, libtpu, which is not installed: "
      "pip install 'podscale[tpu]'"
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
  """Return a core to compile for; nothing can run on it."""
  return slice_devices(CHIPS[chip].topology)[0]


def slice_devices(topology: str) -> "list[jax.Device]":
  """Return the devices of a TPU slice to compile for; nothing runs on them.

  Args:
    topology: Chip and sides of the slice, such as "v3:16x32" (1,024 cores).

  Raises:
    UsageError: libtpu is missing, or does not know the topology.
  """
  from jax.experimental import topologies

  _dump_folder()
  # As on hardware, both cores of a chip of v4 are one device.
  options = {"chip_config_name": "megacore"} if topology[:3] == "v4:" else {}
  try:
    description = topologies.get_topology_desc(
      platform="tpu", topology_name=topology, **options
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).partition("\n")[0]
    raise UsageError(
      f"libtpu {libtpu_version()} does not compile for {topology}: {reason}"
    ) from error
  return description.devices


def _lower(function, args, device, free_layouts, donate):
  """Trace and lower a function for a device on which nothing can run."""
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
  """Trace and describe ops for a chip inside this context.

  Args:
    chip: One of `CHIPS`.

  Raises:
    UsageError: libtpu is missing.
  """
  return _traced_for(_device(chip))


def _fresh(function: Callable[..., Any]) -> Callable[..., Any]:
  """Return the function under a new name, which no cache has compiled."""

  def estimated(*args: Any) -> Any:
    return function(*args)

  estimated.__name__ = f"estimated_{next(_numbers)}"
  return estimated


@contextlib.contextmanager
def _compilation_cache_off() -> Iterator[None]:
  """Turn the compilation cache off, since cached programs dump nothing."""
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
  """Return the installed version of libtpu."""
  return importlib.metadata.version("libtpu")


def compiler() -> dict[str, str]:
  """Return the compiler's version, on which all estimates depend."""
  return {"libtpu": libtpu_version()}
