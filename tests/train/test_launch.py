"""Files that start a run on many hosts."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import podscale.train
from podscale.train.settings.arguments import parse

FOLDER = Path(podscale.train.__file__).parent / "launch"


def words_of(command):
  """Return the words after `podscale.train` in a command."""
  words = shlex.split(command)
  return words[words.index("podscale.train") + 1 :]


def test_the_slurm_script_is_bash_and_its_command_parses():
  script = FOLDER / "slurm.sh"
  subprocess.run(["bash", "-n", script], check=True)
  text = script.read_text()
  assert text.startswith("#!/bin/bash\n#SBATCH ")
  directives = re.findall(r"^#SBATCH (.*)$", text, re.M)
  assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", d) for d in directives)
  # SLURM ignores directives after the first command.
  before = text[: text.index("IMAGES=")]
  assert before.count("#SBATCH") == len(directives)


def test_the_slurm_script_runs_what_it_says(tmp_path):
  """A stand-in for srun prints its arguments."""
  srun = tmp_path / "srun"
  srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
  srun.chmod(0o755)
  said = subprocess.run(
    ["bash", FOLDER / "slurm.sh"],
    env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NAME": "mine"},
    check=True,
    capture_output=True,
    text=True,
  ).stdout.splitlines()
  config = parse(said[said.index("podscale.train") + 1 :])
  assert (config.preset, config.distributed) == ("b5-64k", "on")
  assert config.workdir == "/mnt/runs/mine"


def test_the_jobset_is_whole():
  (job,) = yaml.safe_load_all((FOLDER / "jobset.yaml").read_text())
  assert (job["kind"], job["apiVersion"]) == (
    "JobSet",
    "jobset.x-k8s.io/v1alpha2",
  )
  (replicated,) = job["spec"]["replicatedJobs"]
  spec = replicated["template"]["spec"]
  assert spec["parallelism"] == spec["completions"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  config = parse(words_of(shlex.join(container["command"])))
  assert (config.preset, config.distributed) == ("b5-64k", "on")
  chips = 1
  topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  for side in topology.split("x"):
    chips *= int(side)
  per_host = container["resources"]["limits"]["google.com/tpu"]
  assert spec["completions"] * per_host == chips
  assert config.batch_size % chips == 0
  volumes = {volume["name"] for volume in pod["volumes"]}
  assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("host", ["gcloud", "python3"])
def test_commands_of_the_readme_parse(host):
  text = (FOLDER / "README.md").read_text()
  found = re.search(rf"^      {host} (?:.*\\\n)*.*$", text, re.M)
  command = found[0].replace("\\\n", " ")
  if host == "gcloud":
    words = shlex.split(command)
    assert "--worker=all" in words
    command = words[words.index("--command") + 1]
  assert parse(words_of(command)).preset == "b5-64k"
