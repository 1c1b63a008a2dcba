import inspect
import re
import subprocess
import sys

import pytest
from support.docstrings import documented_arguments, public_functions

from podscale import kernels

FUNCTIONS = public_functions(kernels)


def test_every_public_name_is_there_and_documented():
  assert len(kernels.__all__) == len(set(kernels.__all__))
  for name in kernels.__all__:
    public = getattr(kernels, name)
    if name != "Activation":  # a type alias
      assert public.__doc__, name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_describe_every_argument_and_show_a_call(name):
  function = FUNCTIONS[name]
  parameters = list(inspect.signature(function).parameters)
  if name != "over_bands":  # two arguments, both in its first line
    assert documented_arguments(function) == parameters
  if name != "pack_like":  # its class has the example
    assert re.search(rf"^ *(>>>|\.\.\.) .*\b{name}\(", function.__doc__, re.M)


def test_the_functions_are_found():
  ops = {"depthwise_conv_bn", "pointwise_conv_bn", "batch_norm", "lars_update"}
  assert ops < set(FUNCTIONS)


def test_imports_neither_flax_nor_train():
  # In a process of its own, for this one has imported all of them.
  program = (
    "import sys, podscale.kernels\n"
    "ours = {n for n in sys.modules if n.startswith('podscale.')}\n"
    "print(*sorted(n for n in ours if not n.startswith('podscale.kernels')))\n"
    "others = {n.split('.')[0] for n in sys.modules}\n"
    "print(*sorted(others & {'flax', 'optax', 'orbax', 'tyro', 'rich',\n"
    "  'cv2', 'matplotlib', 'tensorboardX', 'simplejpeg'}))"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert run.stdout.split() == []
