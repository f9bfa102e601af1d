"""Memory and collectives of the compiled programs of the contrastive loss."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.false_negatives import ContrastiveInputs
from tests.objectives.contrasts import AXES, mesh_of

DEVICES, TILE, WIDTH, WORDS = 8, 32, 16, 64
F32 = 4  # bytes


def compiled(implementation: str, batch: int):
    """Value and gradient, for shapes alone."""
    mesh = mesh_of(DEVICES)
    rows, replicated = PartitionSpec(AXES), PartitionSpec()

    def local(queries, products, weights, log_logit_scale):
        loss = partial(
            contrastive_loss, weights=weights, margin=0.1, implementation=implementation, tile=TILE, axis=AXES
        )
        return loss(queries, products, log_logit_scale)[0]

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(rows, rows, rows, replicated), out_specs=replicated, check_vma=True
    )

    def loss(q, p, s, ids, bits, weights):
        return sharded(ContrastiveInputs(q, ids, bits), ContrastiveInputs(p, ids, bits), weights, s)

    def spec(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, rows if shape else replicated))

    vectors = spec(jnp.float32, batch, WIDTH)
    other_inputs = spec(jnp.int32, batch), spec(jnp.uint32, batch, WORDS), spec(jnp.float32, batch)
    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    return step.lower(vectors, vectors, spec(jnp.float32), *other_inputs).compile()


@pytest.fixture(scope="module")
def ring():
    return {batch: compiled("ring", batch) for batch in (1024, 2048)}


def temporary(program) -> int:
    return program.memory_analysis().temp_size_in_bytes


def test_memory_of_the_ring_is_a_few_tiles_and_copies_of_local_rows(ring):
    for batch, program in ring.items():
        b = batch // DEVICES
        assert temporary(program) < 4 * F32 * b * (WIDTH + WORDS + TILE)
        # The bound is tight: neither a [b, B] matrix nor a [tile, b, words] array, even in bytes, fits in it.
        assert temporary(program) < min(F32 * b * batch, TILE * b * WORDS)


def test_memory_of_the_ring_grows_with_the_batch_and_not_its_square(ring):
    assert temporary(ring[2048]) < 2.2 * temporary(ring[1024])
    gather = compiled("gather", 1024)
    assert temporary(gather) > F32 * (1024 // DEVICES) * 1024 > temporary(ring[1024])


def moved(text: str, operation: str) -> list[str]:
    """Result shapes of a collective; a combined one counts as several."""
    lines = re.findall(rf"= (.*?) {operation}(?:-start)?\(", text)
    return [shape for line in lines for shape in re.findall(r"\w+\[[\d,]*\]", line)]


def test_ring_moves_products_twice_and_their_gradient_once_and_gathers_nothing(ring):
    text = ring[1024].as_text()
    b = 1024 // DEVICES
    permutes = moved(text, "collective-permute")
    assert permutes.count(f"f32[{b},{WIDTH}]") == 3
    assert permutes.count(f"u32[{b},{WORDS}]") == 2
    assert not moved(text, "all-gather") and not moved(text, "reduce-scatter") and not moved(text, "all-to-all")
    assert set(moved(text, "all-reduce")) <= {"f32[]", "s32[]"}


def test_gather_moves_products_once_and_column_statistics_only():
    text = compiled("gather", 1024).as_text()
    assert moved(text, "all-gather").count(f"f32[1024,{WIDTH}]") == 1
    assert not moved(text, "collective-permute")
