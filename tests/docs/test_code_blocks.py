"""Every Python block of the README and of the documentation runs."""

import pytest
from support.doc_pages import PAGES, ROOT, name_of
from support.libtpu_mark import NEEDS_LIBTPU
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

_NEEDS_LIBTPU = {"docs/how-to/estimate-a-kernel.md", "docs/estimates.md"}


def blocks_of(page):
  return list(Sybil([PythonCodeBlockParser()]).parse(page))


def pages_with_python():
  for page in PAGES:
    if "```python" in page.read_text(encoding="utf-8"):
      name = name_of(page)
      marks = NEEDS_LIBTPU if name in _NEEDS_LIBTPU else []
      yield pytest.param(page, id=name, marks=marks)


@pytest.mark.parametrize("page", list(pages_with_python()))
def test_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  blocks = blocks_of(page)
  assert blocks
  for block in blocks:
    block.evaluate()


def test_a_block_that_fails_is_found(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
  first, second = blocks_of(page)
  first.evaluate()
  with pytest.raises(AssertionError):
    second.evaluate()


def test_the_how_tos_have_code():
  with_python = {page.id for page in pages_with_python()}
  for name in ("flax-nnx", "linen", "equinox", "plain-jax"):
    assert f"docs/how-to/{name}.md" in with_python
  assert "README.md" in with_python


def test_python_is_fenced_as_python():
  for page in PAGES:
    text = page.read_text(encoding="utf-8")
    assert "```py\n" not in text, page.relative_to(ROOT)
