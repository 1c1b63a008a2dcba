"""Package as users install it: wheel, imports, command line, Makefile."""

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
  "podscale.kernels",
  "podscale.collectives",
  "podscale.model",
  "podscale.train",
  "podscale.train.data",
  "podscale.bench",
)


def run(*command, cwd, check=True, **options):
  """Run a command without environment variables of Python and make."""
  command = [str(part) for part in command]
  env = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "MAKE", "MFLAGS"))
  }
  outcome = subprocess.run(
    command,
    cwd=cwd,
    env=options.pop("env", env),
    capture_output=True,
    text=True,
    timeout=300,
    **options,
  )
  if check:
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
  return outcome


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp("wheel")
  # Build a copy, because a build in the checkout leaves files there, and packs
  # files that an earlier build left.
  leave_out = (
    *(".*", "*.egg-info", "__pycache__"),
    *("build", "dist", "mutants", "runs"),
  )
  shutil.copytree(
    ROOT,
    folder / "source",
    symlinks=True,
    ignore=shutil.ignore_patterns(*leave_out, "tests"),
  )
  run(
    *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
    *("--outdir", folder, folder / "source"),
    cwd=folder,
  )
  (path,) = folder.glob("*.whl")
  return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
  """Create an environment with the wheel and access to our dependencies."""
  folder = tmp_path_factory.mktemp("environment") / "venv"
  run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
  run(
    *(sys.executable, "-m", "pip", "--disable-pip-version-check"),
    *("--python", folder / "bin/python"),
    *("install", "--no-index", "--no-deps", wheel),
    cwd=folder.parent,
  )
  (site,) = folder.glob("lib/python*/site-packages")
  # Python searches folders of a .pth file last and ignores their own .pth
  # files, so an editable podscale stays hidden.
  ours = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
  (site / "dependencies.pth").write_text("\n".join(ours))
  return folder


def test_wheel_holds_podscale_and_its_licences(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
    info = next(n.split("/")[0] for n in names if ".dist-info/" in n)
    metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    licence = archive.read(f"{info}/licenses/LICENSE").decode()
  assert {name.split("/")[0] for name in names} == {"podscale", info}
  assert "Apache License" in licence
  assert metadata["License-Expression"] == "Apache-2.0"
  assert metadata["Requires-Python"] == ">=3.12"
  for name in (
    "podscale/py.typed",
    "podscale/train/data/sources/fashion_mnist.npz",
    "podscale/train/data/sources/fashion_mnist.LICENSE.txt",
    f"{info}/licenses/train/data/sources/fashion_mnist.LICENSE.txt",
  ):
    assert name in names


IMPORT_ALL = """
import importlib, json, pkgutil, sys
import podscale

files, public = [podscale.__file__], {}
for found in pkgutil.walk_packages(podscale.__path__, "podscale."):
  if not found.name.endswith("__main__"):
    module = importlib.import_module(found.name)
    files.append(module.__file__)
    public[found.name] = list(getattr(module, "__all__", []))
    for name in public[found.name]:
      getattr(module, name)

from podscale.train.data import open_fashion_mnist
images = {split: open_fashion_mnist(None, split) for split in ("train", "test")}
json.dump({
  "files": files,
  "public": public,
  "images": {split: len(source) for split, source in images.items()},
  "shape": images["train"][0]["image"].shape,
}, sys.stdout)
"""


def test_wheel_imports_outside_the_checkout(environment, tmp_path):
  python = environment / "bin/python"
  seen = json.loads(run(python, "-c", IMPORT_ALL, cwd=tmp_path).stdout)
  # Without `resolve`, because both pythons are links to the same file.
  for file in seen["files"]:
    assert Path(file).is_relative_to(environment), file
  assert not environment.is_relative_to(ROOT)
  assert set(PACKAGES) <= set(seen["public"])
  for name in ("kernels", "collectives", "model", "train.data"):
    assert len(seen["public"][f"podscale.{name}"]) >= 5
  assert seen["images"] == {"train": 10_000, "test": 2_000}
  assert seen["shape"] == [32, 32, 3]


@pytest.mark.parametrize(
  ("command", "words"),
  [
    (["bin/podscale-train"], ["usage: ", "demo"]),
    (["bin/python", "-m", "podscale.train"], ["usage: ", "demo"]),
    (["bin/podscale-bench"], ["usage: podscale-bench", "step"]),
    (["bin/python", "-m", "podscale.bench"], ["usage: podscale-bench", "step"]),
  ],
)
def test_wheel_has_the_commands(environment, tmp_path, command, words):
  program, *arguments = command
  outcome = run(environment / program, *arguments, "--help", cwd=tmp_path)
  for word in words:
    assert word in outcome.stdout
  assert outcome.stderr == ""


def test_train_starts_from_the_checkout():
  outcome = run(sys.executable, "-m", "train", "--help", cwd=ROOT)
  installed = run(sys.executable, "-m", "podscale.train", "--help", cwd="/")
  assert "demo" in outcome.stdout
  assert outcome.stdout == installed.stdout


# What imports what

# JAX is imported first, because Pallas imports absl if it is installed.
NEW_MODULES = """
import importlib, sys
import jax, jax.numpy, jax.experimental.pallas.tpu, numpy
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(*set(sys.modules) - before)
"""


@pytest.mark.parametrize(
  ("package", "podscales"),
  [
    ("podscale.kernels", {"kernels"}),
    ("podscale.collectives", {"kernels", "collectives"}),
  ],
)
def test_ops_need_jax_and_numpy_only(package, podscales, tmp_path):
  command = (sys.executable, "-c", NEW_MODULES, package)
  new = [n.split(".") for n in run(*command, cwd=tmp_path).stdout.split()]
  packages = {name[1] for name in new if name[0] == "podscale" and name[1:]}
  assert packages == podscales
  others = {name[0] for name in new} - sys.stdlib_module_names
  assert others <= {"podscale", "jax", "jaxlib", "numpy"}


WITHOUT = """
import importlib, pkgutil, sys

class Refuse:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in ("fsspec", "pyarrow", "simplejpeg", "tyro"):
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import podscale
for found in pkgutil.walk_packages(podscale.__path__, "podscale.", print):
  try:
    importlib.import_module(found.name)
  except ModuleNotFoundError as error:
    print(found.name, error.name)
"""


def test_only_the_command_line_needs_more_than_arrays(tmp_path):
  # Machines with a GPU often have jax and flax, but none of these. pyarrow and
  # fsspec are extras.
  lines = run(sys.executable, "-c", WITHOUT, cwd=tmp_path).stdout.splitlines()
  failed = [line.split() for line in lines]
  assert "podscale.train.settings.arguments" in [name for name, *_ in failed]
  for name, *package in failed:
    assert name.startswith("podscale.train."), name
    assert package == ["tyro"], name


# make

TOO_OLD = """#!/bin/sh
case "$1" in
  --version) echo "Python 3.9.2" ;;
  *) exit 1 ;;
esac
"""
BROKEN = """#!/bin/sh
echo "$0: command not found" >&2
exit 127
"""
NEW_ENOUGH = """#!/bin/sh
case "$1" in
  --version) echo "Python 3.13.1" ;;
  -c) exit 0 ;;
  -m) [ "$2" = venv ] && mkdir -p "$3/bin" && echo > "$3/bin/python" ;;
esac
"""
NO_VENV = NEW_ENOUGH.replace("mkdir", "exit 1; mkdir")


@pytest.fixture
def make(tmp_path):
  """Run make on a machine with only the given Pythons."""
  program = shutil.which("make")
  if program is None:
    pytest.fail("make is not installed")
  for name in ("Makefile", "pyproject.toml"):
    shutil.copy(ROOT / name, tmp_path)
  commands = tmp_path / "commands"
  commands.mkdir()
  for name in ("mkdir", "rm", "touch"):
    (commands / name).symlink_to(shutil.which(name))

  def run_make(*arguments, **pythons):
    for name, script in pythons.items():
      file = commands / name.replace("_", ".")
      file.write_text(script)
      file.chmod(0o755)
    return run(
      program,
      *arguments,
      cwd=tmp_path,
      check=False,
      env={"PATH": str(commands)},
    )

  return run_make


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_says_that_python_is_too_old(make, target, tmp_path):
  outcome = make(target, python3=TOO_OLD, python3_12=BROKEN)
  assert outcome.returncode == 2
  assert (
    "podscale needs Python 3.12 or newer; found Python 3.9.2. Install it, or "
    "name one: make PYTHON=/path/to/python3.12\n"
  ) in outcome.stderr
  assert not (tmp_path / ".venv").exists()


def test_make_says_that_there_is_no_python(make):
  outcome = make("demo")
  assert outcome.returncode == 2
  assert "needs Python 3.12 or newer; found no python3." in outcome.stderr


def test_make_says_that_venv_is_missing(make, tmp_path):
  outcome = make("demo", python3=NO_VENV)
  assert outcome.returncode == 2
  assert "python3 cannot create an environment: install" in outcome.stderr
  assert "apt install python3-venv" in outcome.stderr
  assert not (tmp_path / ".venv").exists()


def test_make_takes_the_first_python_that_runs(make, tmp_path):
  outcome = make(
    ".venv/bin/python",
    python3_12=BROKEN,
    python3_13=TOO_OLD,
    python3=NEW_ENOUGH,
  )
  assert outcome.returncode == 0, outcome.stderr
  assert outcome.stdout == "creating .venv with Python 3.13.1\n"
  assert (tmp_path / ".venv/bin/python").exists()


def test_make_takes_the_python_it_is_told(make, tmp_path):
  outcome = make(
    ".venv/bin/python",
    "PYTHON=mine",
    mine=NEW_ENOUGH,
    python3_12=NEW_ENOUGH.replace("3.13.1", "3.12.9"),
  )
  assert outcome.returncode == 0, outcome.stderr
  assert outcome.stdout == "creating .venv with Python 3.13.1\n"
