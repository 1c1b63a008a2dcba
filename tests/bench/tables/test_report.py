"""Tables for the terminal."""

from podscale.bench.tables.report import print_table


def test_a_table_has_every_value_but_the_samples(capsys):
  print_table(
    "a title",
    [
      {"step": "plain", "images_per_s": 12.345678, "samples_s": [1.0, 2.0]},
      {"step": "ours", "images_per_s": 30.0, "samples_s": [3.0, 4.0]},
    ],
  )
  printed = capsys.readouterr().out
  for part in ("a title", "plain", "ours", "12.35", "30"):
    assert part in printed
  assert "samples" not in printed
  assert "ratio of images per second: 2.43" in printed


def test_rows_without_rates_have_no_ratio(capsys):
  print_table("layers", [{"layer": "8x8x8", "ratio": 1.5}] * 2)
  assert "per second" not in capsys.readouterr().out
