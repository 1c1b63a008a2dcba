"""Every numeric flag with any text."""

import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podscale.train.assembly import resolve_model
from podscale.train.errors import UsageError
from podscale.train.settings.arguments import parse
from podscale.train.settings.presets import get_preset

_TEXTS = st.one_of(
  st.integers().map(str),
  st.floats().map(str),
  st.sampled_from(["inf", "-inf", "nan", "1e308", "-1e308", "1e-320", "0", ""]),
  st.sampled_from(["9" * 22, "-" + "9" * 22, "1" + "0" * 400, "0x10", "1_0"]),
  st.text(max_size=6),
)


def numeric_flags(settings_object, prefix="--"):
  """List all flags with a numeric annotation."""
  for field in dataclasses.fields(settings_object):
    name = prefix + field.name.replace("_", "-")
    value = getattr(settings_object, field.name)
    if dataclasses.is_dataclass(value):
      yield from numeric_flags(value, name + ".")
    elif "int" in str(field.type) or "float" in str(field.type):
      yield name


def test_numbers(tally):
  flags = list(numeric_flags(get_preset("smoke")))
  assert len(flags) > 30

  @settings(
    max_examples=5000,
    deadline=20000,
    suppress_health_check=list(HealthCheck),
  )
  @given(st.sampled_from(flags), _TEXTS)
  def run(flag, text):
    config = tally.read(lambda: parse(["smoke", f"{flag}={text}"]))
    if config is None:
      return
    try:
      resolve_model(config.model)
    except UsageError as error:
      assert "\n" not in str(error)
    found = _value(config, flag)
    # The type of the parsed value is the type of the flag.
    expected = None if text == "None" else type(found)(text)
    tally.compare(found, expected)

  run()


def _value(config, flag):
  for name in flag.removeprefix("--").replace("-", "_").split("."):
    config = getattr(config, name)
  return config
