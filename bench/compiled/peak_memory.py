"""Device memory that a compiled program takes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import jax


def peak_bytes(executable: "jax.stages.Compiled") -> int:
  """Add up arguments, results, temporaries and code, as XLA plans them.

  Args:
    executable: Compiled program of any platform.

  Returns:
    Bytes on each device. XLA allocates less on TPUs, see bench/README.md.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> peak_bytes(jax.jit(lambda x: 2 * x).lower(jnp.zeros(1024)).compile())
  8192
  """
  memory: Any = executable.memory_analysis()
  assert memory is not None
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
  )
