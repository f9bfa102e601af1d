"""Collectives counted in traced and in compiled programs of known collectives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from make_jax.planning.collectives import Collective, merge_collectives
from make_jax.planning.hlo_collectives import compiled_collectives
from make_jax.planning.step_costs import step_costs
from make_jax.runs.mesh import BATCH_AXES, make_mesh

STEPS, RING = 5, [(i, (i + 1) % 8) for i in range(8)]


def permute(x: jax.Array, _: None) -> tuple[jax.Array, None]:
    return jax.lax.ppermute(x, BATCH_AXES, RING), None


PROGRAMS: dict[str, tuple[Callable[[jax.Array], jax.Array], Any, Collective]] = {
    # X has 64 x 4 numbers of 4 bytes; 8 rows, 128 bytes, on each device.
    "psum": (
        lambda x: jax.lax.psum(x, BATCH_AXES),
        P(),
        Collective("all-reduce", 8, BATCH_AXES, 1, 1, 128),
    ),
    "all_gather": (
        lambda x: jnp.sin(jax.lax.all_gather(x, "fsdp", tiled=True)),
        P(BATCH_AXES),
        Collective("all-gather", 2, ("fsdp",), 1, 1, 256),
    ),
    "psum_scatter": (
        lambda x: jax.lax.psum_scatter(x, "data", tiled=True),
        P(BATCH_AXES),
        Collective("reduce-scatter", 4, ("data",), 1, 1, 128),
    ),
    "ppermute in a scan": (
        lambda x: jax.lax.scan(permute, x, length=STEPS)[0],
        P(BATCH_AXES),
        Collective("collective-permute", 8, BATCH_AXES, STEPS, 1, 128),
    ),
    "psum in a scan in a scan": (
        lambda x: jax.lax.scan(
            lambda a, _: (
                jax.lax.scan(lambda b, _: (b + jax.lax.psum(jnp.sin(b), BATCH_AXES), None), a, length=3)[0],
                None,
            ),
            x,
            length=STEPS,
        )[0],
        P(BATCH_AXES),
        Collective("all-reduce", 8, BATCH_AXES, 3 * STEPS, 1, 128),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_bytes_and_trip_counts_of_known_programs(name):
    local, out, expected = PROGRAMS[name]
    mesh = make_mesh(fsdp=2)
    program = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P(BATCH_AXES), out_specs=out, check_vma=True))
    traced = program.trace(jax.ShapeDtypeStruct((64, 4), jnp.float32))
    assert step_costs(traced.jaxpr.jaxpr).collectives == [expected]
    assert compiled_collectives(traced.lower().compile().as_text()) == [expected._replace(axes=())]


def test_bytes_sent_by_a_device():
    assert Collective("all-gather", 4, (), 3, 1, 100).sent == 3 * 75
    assert Collective("reduce-scatter", 4, (), 1, 1, 100).sent == 75
    assert Collective("all-reduce", 4, (), 1, 1, 100).sent == 150
    assert Collective("collective-permute", 4, (), 5, 1, 100).sent == 500
    two = [Collective("all-gather", 4, (), 1, 1, 100), Collective("all-gather", 4, (), 1, 2, 30)]
    assert merge_collectives(two) == [Collective("all-gather", 4, (), 1, 3, 130)]


# TPU HLO: a loop without annotated trip count, asynchronous collectives, an all-reduce fused with a slice.
TPU = """\
%all-reduce-scatter.1 (input: f32[192,16]) -> f32[192,8] {
  %input = f32[192,16]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[192,16]{1,0:T(8,128)} all-reduce(%input), replica_groups=[4,2]<=[8]
  ROOT %slice = f32[192,8]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero), dynamic_slice_sizes={192,8}
}

%condition (state: (s32[], bf16[4,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(8)
  %state = (s32[]{:T(128)}, bf16[4,16]{1,0:T(4,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (state.1: (s32[], bf16[4,16])) -> (s32[], bf16[4,16]) {
  %state.1 = (s32[]{:T(128)}, bf16[4,16]{1,0:T(4,128)(2,1)S(1)}) parameter(0)
  %start = (bf16[4,16]{1,0:T(4,128)(2,1)S(1)}, bf16[4,16]{1,0:T(4,128)(2,1)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%x), channel_id=1, source_target_pairs={{0,1},{1,2},{2,3},{3,4},{4,5},{5,6},{6,7},{7,0}}
  %done = bf16[4,16]{1,0:T(4,128)(2,1)S(1)} collective-permute-done(%start)
  ROOT %next = (s32[]{:T(128)}, bf16[4,16]{1,0:T(4,128)(2,1)S(1)}) tuple(%i.1, %done)
}

ENTRY %main (p: bf16[4,16]) -> f32[192,8] {
  %p = bf16[4,16]{1,0:T(4,128)(2,1)S(1)} parameter(0)
  %loop = (s32[]{:T(128)}, bf16[4,16]{1,0:T(4,128)(2,1)S(1)}) while(%t), condition=%condition, body=%body
  %gather = (bf16[16,8]{1,0}, bf16[16,16]{1,0}) all-gather-start(%q), replica_groups={{0,1},{2,3},{4,5},{6,7}}
  %alone = f32[8]{0} all-reduce(%r), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}
  ROOT %kept = f32[192,8]{1,0:T(8,128)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_tpu_programs():
    assert compiled_collectives(TPU) == [
        Collective("reduce-scatter", 2, (), 1, 1, 192 * 16 * 4),
        Collective("collective-permute", 8, (), 8, 1, 4 * 16 * 2),
        Collective("all-gather", 2, (), 1, 1, 16 * 16 * 2),
    ]
    with pytest.raises(ValueError, match="a loop whose trip count is unknown"):
        compiled_collectives(TPU.replace("constant(8)", "parameter(1)"))


def test_a_loop_of_unknown_trip_count_without_collectives_is_accepted():
    inner = "\n".join(line for line in TPU.splitlines() if "collective-permute" not in line)
    assert compiled_collectives(inner.replace("constant(8)", "parameter(1)")) == [
        Collective("reduce-scatter", 2, (), 1, 1, 192 * 16 * 4),
        Collective("all-gather", 2, (), 1, 1, 16 * 16 * 2),
    ]


@pytest.mark.parametrize(("axes", "devices"), [("'data','fsdp'", 8), ("'data'", 4), ("'fsdp'", 2)])
def test_replica_groups_named_by_mesh_axes(axes, devices):
    text = f"""
ENTRY %main (a: f32[4]) -> f32[4] {{
  ROOT %sum = f32[4]{{0}} all-reduce(%a), channel_id=1, replica_groups=mesh['data'=4,'fsdp'=2] {{{axes}}}, to_apply=%add
}}

%add (x: f32[], y: f32[]) -> f32[] {{
  ROOT %z = f32[] add(%x, %y)
}}
"""
    assert compiled_collectives(text) == [Collective("all-reduce", devices, (), 1, 1, 16)]
