"""Commands, flags, files and targets that the documentation names exist."""

import re
import shlex

import pytest
from support.doc_pages import PAGES, ROOT, name_of, text_of

from podscale.bench.__main__ import _parser as bench_parser
from podscale.train.data.__main__ import _parser as data_parser
from podscale.train.settings.arguments import _flag_names, parse
from podscale.train.settings.config import Config

_COMMAND = re.compile(r"python3? -m (podscale[\w.]*)([^`|\n\"]*)")
_FORMS = {"PRESET", "BENCHMARK", "COMMAND", "CHIP"}
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*[\w]")
# Flags of other programs.
_OTHERS = {
  *("--zone", "--worker", "--command"),  # gcloud
  *("--signal", "--requeue", "--nodes", "--kill-on-bad-exit"),  # SLURM
  *("--logdir", "--help", "--editable", "--strict"),
  *("--ff-only", "--all", "--cov", "--benchmark-only"),
}
_PATH = re.compile(
  r"(?<![\w/.:-])((?:kernels|collectives|model|train|bench|tests|docs|src)/"
  r"(?:[\w.-]+/)*(?:[\w-]+\.(?:py|md|ya?ml|sh|json|toml|png|svg|txt))?)"
  r"(?![\w/])"
)


def commands():
  for page in PAGES:
    for module, rest in _COMMAND.findall(text_of(page)):
      words = shlex.split(rest.split(" # ")[0].split(" > ")[0])
      if not _FORMS & set(words) and words:
        yield pytest.param(module, words, id=f"{module} {' '.join(words)}")


@pytest.mark.parametrize(("module", "words"), list(commands()))
def test_a_command_is_parsed(module, words, capsys):
  if words[-1] == "--help":
    parse_help(module, words)
  elif module == "podscale.train" and words[0] == "diff":
    assert len(words) == 3
  elif module == "podscale.train":
    assert parse(words).preset == words[0]
  else:
    parser = {
      "podscale.bench": bench_parser,
      "podscale.train.data": data_parser,
    }[module]
    assert callable(parser().parse_args(words).run)


def parse_help(module, words):
  parsers = {
    "podscale.train": parse,
    "podscale.bench": bench_parser().parse_args,
    "podscale.train.data": data_parser().parse_args,
  }
  with pytest.raises(SystemExit) as exit:
    parsers[module](words)
  assert exit.value.code == 0


def known_flags():
  known = {*_flag_names(Config()), *_OTHERS}
  for parser in (bench_parser(), data_parser()):
    (commands,) = (
      a for a in parser._actions if hasattr(a, "choices") and a.choices
    )
    for command in commands.choices.values():
      known.update(command._option_string_actions)
  return known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_exist(page):
  named = set(_FLAG.findall(text_of(page)))
  assert named <= known_flags()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page):
  named = set(_PATH.findall(text_of(page)))
  missing = {
    name for name in named if not (ROOT / name).exists() and "NAME" not in name
  }
  assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  for target in re.findall(r"[`\n]make ([a-z-]+)", text_of(page)):
    assert f"\n{target}:" in makefile, target


def test_every_make_target_is_described():
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  (targets,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
  commands = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
  for target in targets.replace("\\\n", " ").split():
    assert f"| `make {target}` |" in commands


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_private_machine(page):
  text = text_of(page)
  for word in ("/tmp/", "/work/", "../shared"):
    assert word not in text


def test_the_readme_is_short():
  text = (ROOT / "README.md").read_text(encoding="utf-8")
  assert len(text.splitlines()) <= 150


def test_a_wrong_name_is_found(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("`kernels/no_such.py` and --no-such, in kernels/common/")
  assert _PATH.findall(text_of(page)) == [
    "kernels/no_such.py",
    "kernels/common/",
  ]
  assert not set(_FLAG.findall(text_of(page))) <= known_flags()
