import inspect
import pkgutil
import subprocess
import sys

import pytest
from support.docstrings import documented_arguments, public_functions

from podscale import collectives

FUNCTIONS = public_functions(collectives)
MODULES = [m.name for m in pkgutil.iter_modules(collectives.__path__)]


def test_exports_what_it_names():
  assert len(MODULES) > 4
  public = {name for name in vars(collectives) if not name.startswith("_")}
  assert public - set(MODULES) == set(collectives.__all__)
  for name in set(collectives.__all__) - {"GROUP", "MEMBER", "ALL_DEVICES"}:
    assert getattr(collectives, name).__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_have_every_argument_the_result_and_a_call(name):
  function = FUNCTIONS[name]
  parameters = list(inspect.signature(function).parameters)
  assert documented_arguments(function) == parameters
  assert "Returns:" in function.__doc__
  assert ">>> " in function.__doc__ or name == "gather_shards"


def test_imports_neither_flax_nor_train():
  program = (
    "import sys, podscale.collectives\n"
    "print(*sorted(name for name in sys.modules if name.split('.')[0] in "
    "('flax', 'optax', 'orbax', 'tyro', 'tensorflow', 'torch') "
    "or name.startswith(('podscale.train', 'podscale.model'))))"
  )
  run = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stdout.split() == []
