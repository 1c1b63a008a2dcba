"""Translated against interpreted scalar code.

The table's meanings are the oracle of its Python source, value by value; the
interpreter is the oracle of the translator, on stored and on random programs.
"""

import itertools
import random
from types import SimpleNamespace

import pytest
from support.scalar_interpreter import InterpretedCode

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.static import routine
from podscale.bench.estimated.static.bundles import read_bundles
from podscale.bench.estimated.static.operations import (
  HELPERS,
  KINDS,
  VALUES,
  value_of,
)
from podscale.bench.estimated.static.program import simulate_program
from podscale.bench.estimated.static.scalar import ScalarCode
from podscale.bench.estimated.static.unknown import UNKNOWN

DRAW = random.Random(0)
EDGES = [0, 1, 2, 31, 32, 33, 63, 64, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
WORDS = [*EDGES, *(DRAW.randrange(2**32) for _ in range(20)), UNKNOWN]
PREDICATES = [True, False, UNKNOWN]
NUMBER_OF_OPERANDS = {
  **dict.fromkeys(("smov", "smov.u32", "reloc", "pneg", "pmov"), 1),
  "scalar_select": 3,
}


def operands(name):
  """List all operands of an operation that a test tries."""
  count = NUMBER_OF_OPERANDS.get(name, 2)
  if name == "scalar_select":
    return itertools.product(PREDICATES, WORDS, WORDS)
  values = PREDICATES if KINDS.get(name) == "logic" else WORDS
  return itertools.product(values, repeat=count)


def evaluate(expression, values):
  names = {f"x{i}": value for i, value in enumerate(values)}
  return eval(expression, {**HELPERS, **names, "UNKNOWN": UNKNOWN})


def same(a, b):
  # UNKNOWN compares as unknown, so it is told apart by identity.
  return a is b or (a is not UNKNOWN and b is not UNKNOWN and a == b)


@pytest.mark.parametrize("name", VALUES)
def test_the_source_has_the_meaning(name):
  row = VALUES[name]
  for values in operands(name):
    expected = row.evaluate(*values)
    names = [f"x{i}" for i in range(len(values))]
    actual = evaluate(row.expression(names), values)
    assert same(actual, expected), (values, expected, actual)
    # Shifts by a literal have a source of their own.
    written = [*names[:-1], str(values[-1])]
    actual = evaluate(row.expression(written), values)
    assert same(actual, expected), (written, values, expected, actual)
    if expected is not UNKNOWN:
      is_word = type(expected) is int and 0 <= expected < 2**32
      assert is_word or type(expected) is bool


def test_every_comparison_has_a_row():
  for relation in ("eq", "ne", "lt", "le", "gt", "ge"):
    for dtype in ("s32", "u32"):
      row = value_of(f"scmp.{relation}.{dtype}.totalorder")
      assert row is VALUES[f"scmp.{relation}.{dtype}"]
  # Known from the mathematics alone.
  assert VALUES["scmp.lt.s32"].evaluate(2**32 - 1, 0) is True
  assert VALUES["scmp.lt.u32"].evaluate(2**32 - 1, 0) is False


def outcome(code_type, text):
  """Run one block; return the stored words and the notes."""
  bundles = read_bundles(text, top_level=False)
  code = code_type(bundles, [0] * bundles.length, CHIPS["v5e"])
  words, notes = {}, []
  clock = SimpleNamespace(now=0)
  code.start(clock=clock, words=words, note=notes.append)
  code.block(0)()
  assert clock.now == bundles.length
  return words, notes


def random_program(seed):
  """Write a program of guarded operations, each of whose results is stored."""
  draw = random.Random(seed)
  scalars = [f"%s{i}_s{i}" for i in range(6)]
  predicates = [f"%p{i}_p{i}" for i in range(4)]
  lines = ["{ %s0_s0 = spop %99 }"]  # unknown
  for i, register in enumerate(scalars[1:]):
    lines.append(f"{{ {register} = smov.u32 {draw.choice(EDGES[i:])} }}")
  for register in predicates:
    a, b = draw.choices(scalars, k=2)
    lines.append(f"{{ {register} = scmp.lt.s32.totalorder {a}, {b} }}")

  def scalar():
    literal = str(draw.choice([*EDGES, draw.randrange(2**32)]))
    return draw.choice([*scalars, literal])

  def guard(registers):
    sign = draw.choice(["", "!"])
    predicate = draw.choice(predicates)
    otherwise = draw.choice(["", f", {draw.choice(registers)}"])
    return draw.choice(["", f"({sign}{predicate}{otherwise}), "])

  for i in range(60):
    # Unknown values spread, so known ones are written again and again.
    lines.append(
      f"{{ {draw.choice(scalars)} = smov.u32 {draw.choice(EDGES)}  ;;  "
      f"{draw.choice(predicates)} = scmp.lt.u32.totalorder "
      f"{draw.choice(EDGES)}, {draw.choice(EDGES)} }}"
    )
    name = draw.choice([x for x in VALUES if x != "scalar_select"])
    count = NUMBER_OF_OPERANDS.get(name, 2)
    is_logic = KINDS.get(name) == "logic"
    if is_logic or name.startswith("scmp"):
      result = draw.choice(predicates)
      if is_logic:
        values = ", ".join(draw.choices(predicates, k=count))
      else:
        name, values = f"{name}.totalorder", f"{scalar()}, {scalar()}"
      lines.append(f"{{ {result} = {name} {guard(predicates)}{values} }}")
      # A word that shows the predicate.
      chosen = f"scalar_select {result}, 1, {draw.choice(scalars)}"
      lines.append(f"{{ {draw.choice(scalars)} = {chosen} }}")
    else:
      result = draw.choice(scalars)
      values = ", ".join(scalar() for _ in range(count))
      lines.append(f"{{ {result} = {name} {guard(scalars)}{values} }}")
    for j, register in enumerate(scalars):
      lines.append(f"{{ %{i} = sst [smem:[{100 * i + j}]] {register} }}")
  return "\n".join(f"{hex(i) if i else 0} : {b}" for i, b in enumerate(lines))


@pytest.mark.parametrize("seed", range(20))
def test_random_programs(seed):
  text = random_program(seed)
  translated, notes = outcome(ScalarCode, text)
  interpreted, expected_notes = outcome(InterpretedCode, text)
  assert notes == expected_notes == []
  assert translated.keys() == interpreted.keys()
  assert len(translated) == 360
  different = [
    at for at, word in translated.items() if not same(word, interpreted[at])
  ]
  assert different == []
  # A program of which all is unknown would test nothing.
  assert sum(word is not UNKNOWN for word in translated.values()) > 100


@pytest.mark.parametrize(
  "name",
  [
    *("loop_v5e", "small_v2", "small_v3", "small_v4", "small_v5e"),
    *("small_v5p", "small_v6e", "small_tpu7x"),
  ],
)
def test_stored_programs(dumps, name, monkeypatch):
  chip = CHIPS[name.split("_")[1]]
  translated = simulate_program(dumps / name, chip)
  monkeypatch.setattr(routine, "ScalarCode", InterpretedCode)
  interpreted = simulate_program(dumps / name, chip)
  assert not any(
    "FAILED" in x for r in interpreted.routines for x in r.unmodelled
  )
  for a, b in zip(
    [*translated.routines, translated.top_level],
    [*interpreted.routines, interpreted.top_level],
    strict=True,
  ):
    assert a._replace(microseconds=0, stall_us=0) == b._replace(
      microseconds=0, stall_us=0
    )
    # Cycles are added in another order.
    assert a.microseconds == pytest.approx(b.microseconds, rel=1e-12)
    assert a.stall_us == pytest.approx(b.stall_us, rel=1e-9)
