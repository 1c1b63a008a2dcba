"""Runs with several processes."""

import glob
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from support.train_processes import (
  finish,
  records,
  run_of,
  saved_steps,
  start,
  stop_at,
  wait_for_checkpoint,
  wait_for_step,
)

from podscale.train.errors import UsageError
from podscale.train.records.diff import diff
from podscale.train.settings.config import Config

# One group of all devices, so that batch norm spans the processes.
FLAGS = [
  *("--epochs", "1"),
  *("--batch-norm.images-per-group", "64", "--eval-batch-size", "48"),
]


def free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def start_all(workdir, count, *flags, devices=2):
  address = f"127.0.0.1:{free_port()}"
  told = ["--coordinator", address, "--num-processes", str(count)]
  return [
    start(
      workdir, *FLAGS, *told, "--process-id", str(i), *flags, devices=devices
    )
    for i in range(count)
  ]


def lines_of_ours(said):
  return [x for x in said.splitlines() if x.startswith("podscale-train: ")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """Workdir of a run in one process with four devices."""
  workdir = tmp_path_factory.mktemp("alone")
  finish(start(workdir, *FLAGS, devices=4))
  return workdir


def assert_alike(workdir, alone):
  """Compare losses up to rounding, and the number of evaluated images."""
  for kind, name in (("train", "loss"), ("eval", "loss")):
    got = [r[name] for r in records(workdir, kind)]
    want = [r[name] for r in records(alone, kind)]
    # Half an ulp in the first weights moves these losses by up to 6e-7; here
    # all sums of each step round differently.
    np.testing.assert_allclose(got, want, rtol=1e-5)
  (got,), (want,) = records(workdir, "eval"), records(alone, "eval")
  assert got["examples"] == want["examples"] == 1000


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_as_one_does(alone, tmp_path, count):
  said = finish(*start_all(tmp_path, count, devices=4 // count))
  assert_alike(tmp_path, alone)
  # Logs and checkpoints are written once.
  assert len(records(tmp_path, "run")) == 1
  assert [r["step"] for r in records(tmp_path, "train")] == list(range(1, 7))
  saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
  assert saved == ["3", "6"]
  assert [text.count("step 6/6") > 0 for text in said] == [
    process == 0 for process in range(count)
  ]
  for process, text in enumerate(said):
    assert f"process {process} of {count}" in text
    assert "Gloo" not in text
    name = f"libraries-{process}.log" if process else "libraries.log"
    assert "[Gloo] Rank" in (tmp_path / name).read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sigterm_to_one_process_saves_on_all(tmp_path):
  long = ("--epochs", "1000", "--eval-every-epochs", "1000")
  first, second = start_all(
    tmp_path, 2, *long, "--checkpoint-every-epochs", "1000"
  )
  wait_for_step(first, 2)
  begin = time.monotonic()
  second.send_signal(signal.SIGTERM)
  both = finish(first, second)
  assert time.monotonic() - begin < 30
  assert [lines_of_ours(text) for text in both] == [[], []]
  said = both[0]
  (line,) = [x for x in said.splitlines() if x.startswith("stopped by SIGTERM")]
  step = int(line.split("at step ")[1].split(",")[0])
  (saved,) = (tmp_path / "checkpoints").iterdir()
  assert saved.name == str(step)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_in_a_compilation_ends_all_at_once(tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # compile again
  first, second = start_all(tmp_path, 2)
  lines, heard, seconds = stop_at(
    first, "left out: nothing", after=3, signalled=second
  )
  said = ["".join(lines), *finish(second)]
  assert first.returncode == 0
  assert heard < 30 and seconds < 30
  for text in said:
    assert "SIGTERM: the run saves its state and stops\n" in text
    assert text.count("stopped by SIGTERM before a step was done") == 1
  assert all(lines_of_ours(text) == [] for text in said)


def hanging_all(workdir, hang, *hangs):
  """Start two processes; those in `hangs` run `hang` at each batch."""
  address = f"127.0.0.1:{free_port()}"
  flags = [*FLAGS, "--coordinator", address, "--num-processes", "2"]
  code = (
    "import time\n"
    "from podscale.train import input_pipeline\n"
    "from podscale.train.data.loading import device_prefetch\n"
    "device_prefetch._CLOSE_SECONDS = 0.1\n"
    "real, seen = input_pipeline.to_devices, []\n"
    "def to_devices(batch, mesh):\n"
    "  is_train = len(batch['label']) == 32\n"
    f"  {hang}\n"
    "  return real(batch, mesh)\n"
    "input_pipeline.to_devices = to_devices"
  )
  return [
    run_of(code if i in hangs else "", workdir, *flags, "--process-id", str(i))
    for i in range(2)
  ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_in_an_evaluation_leaves_it_on_all(tmp_path):
  hang = "is_train or time.sleep(3)"  # a minute for all batches
  first, second = hanging_all(tmp_path, hang, 0, 1)
  lines, heard, seconds = stop_at(first, "step 6/6", after=5, signalled=second)
  finish(second)
  assert first.returncode == 0
  assert heard < 30 and seconds < 30
  assert any("stopped by SIGTERM at step 6, saved" in line for line in lines)
  assert records(tmp_path, "eval") == []


FOURTH = (
  "is_train and (seen.append(batch), len(seen) == 4 and time.sleep(10_000))"
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_no_process_has_images_all_save(tmp_path):
  first, second = hanging_all(tmp_path, FOURTH, 0, 1)
  lines, heard, seconds = stop_at(first, "step 3/6", after=1, signalled=second)
  finish(second)
  assert first.returncode == 0
  assert heard < 30 and seconds < 30
  assert any("stopped by SIGTERM at step 3, saved" in line for line in lines)
  assert saved_steps(tmp_path) == {3}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_one_process_has_no_images_all_end(tmp_path):
  """The other process waits in a step for this one."""
  first, second = hanging_all(tmp_path, FOURTH, 1)
  lines, heard, seconds = stop_at(first, "step 3/6", after=1, signalled=first)
  said = ["".join(lines), *finish(second)]
  assert first.returncode == 0
  assert heard < 30 and seconds < 40
  for text in said:
    assert "a process lacks images and the others wait for it" in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_other_ends_and_a_restart_resumes(
  tmp_path, killed
):
  flags = ("--epochs", "8", "--eval-every-epochs", "8")
  processes = start_all(tmp_path, 2, *flags)
  while not (tmp_path / "checkpoints" / "3").exists():
    assert [process.poll() for process in processes] == [None, None]
    time.sleep(0.05)
  begin = time.monotonic()
  processes[killed].kill()
  said, _ = processes[1 - killed].communicate(timeout=60)
  assert time.monotonic() - begin < 60
  assert processes[1 - killed].returncode not in (0, None), said
  processes[killed].communicate()
  (line,) = lines_of_ours(said)
  assert f"process {1 - killed} of 2" in line
  assert "start the run again with the same --workdir" in line
  (text, _) = finish(*start_all(tmp_path, 2, *flags))
  (line,) = [x for x in text.splitlines() if "resuming at step " in x]
  assert int(line.split("resuming at step ")[1].split()[0]) >= 3
  assert [r["step"] for r in records(tmp_path, "train")] == list(range(1, 49))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_fills_in_a_save_keeps_the_run(tmp_path):
  """Limit the files of process 0, which writes, below the state's size."""
  long = ("--epochs", "1000", "--eval-every-epochs", "1000")
  first, second = start_all(tmp_path, 2, *long)
  wait_for_checkpoint(tmp_path, first, second)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (100_000, hard))
  said = next(line for line in first.stdout if "could not be saved" in line)
  assert "is kept" in said and "File too large" in said
  assert "the run goes on" in said
  resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (soft, hard))
  wait_for_checkpoint(tmp_path, first, second)
  second.send_signal(signal.SIGTERM)
  said, _ = finish(first, second)
  (line,) = [x for x in said.splitlines() if x.startswith("stopped by SIGTERM")]
  step = int(line.split("at step ")[1].split(",")[0])
  assert step in saved_steps(tmp_path)
  steps = [record["step"] for record in records(tmp_path, "train")]
  assert steps == list(range(1, step + 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_process_0_refuses_all_refuse(tmp_path):
  (tmp_path / "something").write_text("else")
  processes = start_all(tmp_path, 2)
  said = [process.communicate()[0] for process in processes]
  assert [process.returncode for process in processes] == [2, 2], said
  for text in said:
    (line,) = lines_of_ours(text)
    assert "is not empty and has no config.json" in line


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_processes_need_a_workdir(tmp_path):
  address = f"127.0.0.1:{free_port()}"
  flags = ["--coordinator", address, "--num-processes", "2"]
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, "-m", "podscale.train", "smoke", *flags),
        *("--process-id", str(i), "--cpu-devices", "2"),
      ],
      cwd=tmp_path,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  for process in processes:
    said, _ = process.communicate()
    assert process.returncode == 2, said
    (line,) = lines_of_ours(said)
    assert "2 processes need a --workdir" in line


@pytest.mark.parametrize(
  ("settings", "said"),
  [
    ({"coordinator": "host:1"}, "go together"),
    ({"coordinator": "h:1", "num_processes": 2}, "go together"),
    (
      dict(coordinator="h:1", num_processes=2, process_id=0, distributed="off"),
      "not with --distributed off",
    ),
    (
      dict(coordinator="h:1", num_processes=2, process_id=2),
      "--process-id must be below --num-processes 2, got 2",
    ),
  ],
)
def test_processes_that_are_told_half_are_refused(settings, said):
  with pytest.raises(UsageError, match=said):
    Config(**settings)


@pytest.mark.parametrize(
  "address",
  [
    *("", ":", "h", "h:", ":1", "h:0", "h:65536", "h:99999", "h:1e3", "h:-1"),
    *("h:abc", "h:١", "h:1:2", "::1:8476", "[]:1", "[::1]", "[::1]:0", "a b:1"),
    *("http://h:1", "h:1\n", "h:" + "1" * 22),
  ],
)
def test_a_coordinator_that_is_no_host_and_port_is_refused(address):
  with pytest.raises(UsageError, match="must be HOST:PORT") as error:
    Config(coordinator=address, num_processes=2, process_id=0)
  assert f"got {address!r}" in str(error.value)


@pytest.mark.parametrize(
  "address",
  ["h:1", "10.0.0.1:8476", "my-host.a_b.example:65535", "[fd00::1]:8476"],
)
def test_hosts_and_ports(address):
  config = Config(coordinator=address, num_processes=2, process_id=1)
  assert config.coordinator == address


def test_a_coordinator_is_refused_before_jax_is_there(tmp_path):
  code = (
    "import sys; from podscale.train.__main__ import main; "
    "code = main(['smoke', '--coordinator', '127.0.0.1:abc', "
    "'--num-processes', '2', '--process-id', '0']); "
    "print(code, 'jax' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
  )
  assert done.stdout == "2 False\n"
  (line,) = done.stderr.splitlines()
  assert line.startswith("podscale-train: --coordinator must be HOST:PORT")


def test_on_without_a_launcher_is_one_line(tmp_path):
  process = start(tmp_path / "run", "--distributed", "on", devices=1)
  said, _ = process.communicate()
  assert process.returncode == 2
  (line,) = said.splitlines()
  assert "no launcher of many processes was found" in line
  assert "--coordinator HOST:PORT" in line


def listening(process):
  """Return the addresses at which a process listens, from /proc."""
  sockets = {
    os.readlink(path)
    for path in glob.glob(f"/proc/{process.pid}/fd/*")
    if os.path.islink(path)
  }
  found = []
  for table in ("tcp", "tcp6"):
    with open(f"/proc/{process.pid}/net/{table}") as file:
      rows = [line.split() for line in list(file)[1:]]
    found += [
      row[1]
      for row in rows
      if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    ]
  return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_coordinator_listens_on_its_address_only(tmp_path):
  port = free_port()
  told = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", "2")
  process = start(tmp_path / "run", *told, "--process-id", "0", devices=1)
  begin = time.monotonic()
  while not listening(process):
    assert process.poll() is None and time.monotonic() - begin < 60
    time.sleep(0.05)
  time.sleep(1)  # time to open other sockets
  found = listening(process)
  process.kill()
  process.communicate()
  # An IPv6 socket may stand for IPv4; the words are little-endian.
  mapped = "0000000000000000FFFF0000"
  (address,) = (row.removeprefix(mapped) for row in found)
  assert address == f"0100007F:{port:04X}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_twice_are_the_same_bit_for_bit(tmp_path):
  for name in ("once", "again"):
    finish(*start_all(tmp_path / name, 2))
  assert diff(tmp_path / "once", tmp_path / "again") == []
