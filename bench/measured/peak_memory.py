"""What a compiled program takes of a device's memory."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import jax


def peak_bytes(executable: "jax.stages.Compiled") -> int:
  """Bytes of arguments, results, temporaries and code, as XLA plans them.

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
