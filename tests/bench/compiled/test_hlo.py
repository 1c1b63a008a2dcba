"""Instructions read from HLO text, here of a made-up step."""

import pytest

from podscale.bench.compiled.hlo import KINDS, read_instructions

HLO = """HloModule jit_step, is_scheduled=true

%add.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum.1 = f32[] add(%a, %b)
}

%fused.1 (p: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  ROOT %c.1 = bf16[8,8]{1,0} convolution(%p, %p), dim_labels=bf_io->bf
}

%fused.2 (p: bf16[8,8]) -> bf16[8,8] {
  ROOT %c.2 = bf16[8,8]{1,0} convolution(%p, %p), feature_group_count=8
}

%all-reduce-scatter.1 (input: f32[8]) -> f32[4] {
  %inner = f32[8]{0} all-reduce(%input), replica_groups={{0,1},{2,3}}
  ROOT %part = f32[4]{0} dynamic-slice(%inner, %number)
}

ENTRY %main (x: bf16[8,8]) -> f32[] {
  %x = bf16[8,8]{1,0} parameter(0)
  %dense = bf16[8,8]{1,0:T(8,128)(2,1)} fusion(%x), kind=kOutput, calls=%fused.1
  %deep = bf16[8,8]{1,0} fusion(%x), kind=kOutput, calls=%fused.2
  %depthwise_conv_bn_forward.3 = (bf16[8,8]{1,0}, f32[4,8]{1,0}) \
custom-call(%x), custom_call_target="tpu_custom_call"
  %gated_pointwise_conv_bn_backward.4 = bf16[8,8]{1,0} custom-call(%x), \
custom_call_target="tpu_custom_call"
  %decay = f32[8]{0} fusion(%x), kind=kLoop, calls=%add.1, \
metadata={op_name="jit(step)/shard_map/update/mul"}
  %silu = f32[8]{0} fusion(%x), kind=kLoop, calls=%add.1, \
metadata={op_name="jit(step)/jvp(block_1)/mul"}
  %in-group = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, \
to_apply=%add.1
  %scattered = f32[4]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %step = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,2}}
  %start = f32[16]{0} all-gather-start(%x), replica_groups=[2,4]<=[8]
  %permute = (f32[8]{0:T(128)}, f32[8]{0:T(128)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%x), source_target_pairs={{0,1},{1,2}}
  %gather = (f32[4]{0}, f32[16]{0}) all-gather-start(%x), \
replica_groups=[2,4]<=[8]
  %sum = f32[8]{0} all-reduce-start(%x), replica_groups=[2,4]<=[8], \
to_apply=%add.1
  ROOT %all = f32[2,8]{1,0} all-reduce(%x), \
replica_groups=mesh['group'=4,'member'=2] {'group','member'}, to_apply=%add.1
}
"""


@pytest.fixture(scope="module")
def instructions():
  return read_instructions(HLO)


@pytest.mark.parametrize(
  ("name", "kind"),
  [
    ("dense", "pointwise"),
    ("deep", "depthwise"),
    ("depthwise_conv_bn_forward.3", "depthwise"),
    ("gated_pointwise_conv_bn_backward.4", "pointwise"),
    ("decay", "optimizer"),
    ("silu", "normalisation"),
    ("in-group", "collectives"),
    ("step", "collectives"),
    ("scattered", "collectives"),
    ("start", "collectives"),
  ],
)
def test_kinds(instructions, name, kind):
  assert instructions[name].kind == kind
  assert kind in KINDS


@pytest.mark.parametrize(
  ("name", "op", "bytes_", "group"),
  [
    ("in-group", "all-reduce", 32, 2),
    ("start", "all-gather", 64, 4),
    ("permute", "collective-permute", 32, 2),
    ("gather", "all-gather", 64, 4),
    ("sum", "all-reduce", 32, 4),
    ("step", "collective-permute", 32, 2),
    ("scattered", "reduce-scatter", 16, 2),
    ("all", "all-reduce", 64, 8),
  ],
)
def test_collectives(instructions, name, op, bytes_, group):
  found = instructions[name]
  assert (found.collective, found.bytes, found.group_size) == (
    *(op, bytes_, group),
  )


def test_instructions_inside_fusions_are_left_out(instructions):
  assert not {"inner", "c.1", "c.2"} & set(instructions)


def test_bytes_of_all_results(instructions):
  forward = instructions["depthwise_conv_bn_forward.3"]
  assert forward.bytes == 2 * 8 * 8 + 4 * 4 * 8


def test_groups_in_an_unknown_form_are_refused():
  text = "ENTRY %m (x: f32[]) -> f32[] {\n  %y = f32[] all-reduce(%x)\n}\n"
  with pytest.raises(ValueError, match="no replica groups"):
    _ = read_instructions(text)["y"].group_size
