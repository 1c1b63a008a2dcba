import pytest
from lint.docstring_openers import findings


@pytest.mark.parametrize(
  "docstring",
  [
    "What the op returns.",
    "of the image.",
    "Scale.\n\nWhere it is None, ones are taken.",
    "Scale.\n\nArgs:\n  bands: of the image.",
    "Scale.\n\nArgs:\n  *arrays: Those to add.",
    "Scale.\n\nArgs:\n  x, y: Which of them.",
  ],
)
@pytest.mark.parametrize(
  "program",
  ['"""{}"""', 'def f():\n  """{}"""', 'class A:\n  x = 1\n  """{}"""'],
)
def test_finds_a_line_that_opens_badly(program, docstring):
  assert len(list(findings(program.format(docstring)))) == 1


@pytest.mark.parametrize(
  "docstring",
  [
    "Scale the image, of which there is one.",
    "Scale x\nof the image, where it has bands.",
    "Offer a result.",
    "Scale.\n\nArgs:\n  bands: Number of bands.",
  ],
)
def test_accepts_other_lines(docstring):
  assert not list(findings(f'def f():\n  """{docstring}"""'))


def test_names_the_line():
  program = 'x = 1\n\n\ndef f():\n  """Add.\n\n  What it adds.\n  """'
  assert list(findings(program)) == [(7, "What it adds.")]
