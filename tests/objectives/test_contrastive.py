"""The contrastive loss: every implementation against the formula and against each other, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import ObjectivesConfig
from make_jax.errors import InputError
from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.false_negatives import ContrastiveInputs
from make_jax.objectives.total import check_objectives
from tests.objectives.contrasts import B, agree, formula, loss_of, negatives, options, plain_example, together

REFERENCE = ("gather", 0)
IMPLEMENTATIONS = [*(("gather", n) for n in (1, 2, 4, 8)), *(("ring", n) for n in (0, 1, 2, 4, 8))]
TILES = {0: 7, 1: 256, 2: 5, 4: 4, 8: 2}  # of the ring, by devices: 4 of 24, 12, 6, 3 rows are not divided
CASES = {"nothing": {}, **options(), "together": together()}
NEGATIVE = [name for name in CASES if name not in ("no valid negative", "all weights zero")]


def example(case: str):
    return plain_example() | CASES[case]


@pytest.mark.parametrize("loss_type", ["softmax", "sigmoid"])
@pytest.mark.parametrize("case", NEGATIVE)
def test_reference_equals_the_formula_in_value_and_gradient(loss_type, case):
    e = example(case)
    (value, _), gradients = loss_of(*REFERENCE, loss_type)(e)
    agree((value, gradients), formula(loss_type, 0.2)(e))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("implementation", "devices"), IMPLEMENTATIONS)
def test_softmax_implementations_equal_the_reference_in_value_and_gradient(implementation, devices, case):
    agree(loss_of(implementation, devices, tile=TILES[devices])(example(case)), loss_of(*REFERENCE)(example(case)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("implementation", "devices"), [("gather", 4), ("ring", 0), ("ring", 2), ("ring", 8)])
def test_sigmoid_implementations_equal_the_reference_in_value_and_gradient(implementation, devices, case):
    actual = loss_of(implementation, devices, "sigmoid", tile=TILES[devices])(example(case))
    agree(actual, loss_of(*REFERENCE, "sigmoid")(example(case)))


@pytest.mark.parametrize(("implementation", "devices"), [("gather", 8), ("ring", 0), ("ring", 8)])
def test_without_margin_swaps_and_keywords_implementations_equal_the_formula(implementation, devices):
    e = example("duplicates")
    (value, _), gradients = loss_of(implementation, devices, margin=0.0, bare=True)(e)
    agree((value, gradients), formula("softmax", 0.0)(e))


@pytest.mark.parametrize("loss_type", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("implementation", "devices"), [REFERENCE, ("gather", 4), ("ring", 2)])
def test_all_weights_zero_gives_loss_zero_and_finite_gradients(implementation, devices, loss_type):
    (value, _), gradients = loss_of(implementation, devices, loss_type, tile=TILES[devices])(
        together() | CASES["all weights zero"]
    )
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients.values())


@pytest.mark.parametrize(("implementation", "devices"), [REFERENCE, ("ring", 8)])
def test_row_with_no_valid_negative_has_loss_zero(implementation, devices):
    (value, _), gradients = loss_of(implementation, devices)(example("no valid negative"))
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients.values())


@pytest.mark.parametrize(("implementation", "devices"), [REFERENCE, ("ring", 2)])
def test_weight_zero_row_is_neither_query_nor_negative(implementation, devices):
    e = together()
    loss = loss_of(implementation, devices, tile=TILES[devices])
    other = {name: e[name].at[3].set(e[name][3, ::-1]) for name in ("q", "swap")}  # weight 0
    other |= {"p": e["p"].at[15].set(e["p"][15, ::-1])}  # weight 0
    assert loss(e | other)[0][0] == loss(e)[0][0]
    other["q"] = e["q"].at[4].set(e["q"][4, ::-1])  # weight 1
    assert loss(e | other)[0][0] != loss(e)[0][0]


@pytest.mark.parametrize(("implementation", "devices"), [REFERENCE, ("ring", 2)])
def test_swap_is_a_negative_of_its_product_and_of_no_query(implementation, devices):
    e = example("swaps")
    loss = loss_of(implementation, devices, "sigmoid", tile=TILES[devices])  # a sum of pairs, each by itself
    gradients, others = loss(e)[1], loss(example("nothing"))[1]
    has_swap = np.asarray(e["sid"]) >= 0
    assert (
        np.asarray(gradients["swap"])[has_swap].any(axis=1).all() and not np.asarray(gradients["swap"])[~has_swap].any()
    )
    assert (np.asarray(gradients["p"] != others["p"]).any(axis=1) == has_swap).all()
    np.testing.assert_array_equal(np.asarray(gradients["q"]), np.asarray(others["q"]))


@pytest.mark.parametrize(("implementation", "devices"), [REFERENCE, ("ring", 8)])
def test_bfloat16_gradients_are_near_and_scale_100_stays_finite(implementation, devices):
    e = together() | CASES["scale 100"]
    rounded = e | {name: e[name].astype(jnp.bfloat16) for name in ("q", "p", "swap")}
    widened = rounded | {name: rounded[name].astype(jnp.float32) for name in ("q", "p", "swap")}
    (value, _), coarse = loss_of(implementation, devices)(rounded)
    (expected, _), fine = loss_of(*REFERENCE)(widened)
    agree(value, expected, 2**-7)
    agree(jax.tree.map(lambda x: np.asarray(x, np.float32), coarse), fine, 2**-7)


def test_metrics_follow_the_pairs_of_the_loss():
    e = together()
    (_, metrics), _ = loss_of(*REFERENCE)(e)
    w, dots = np.asarray(e["w"]), np.asarray(e["q"]) @ np.asarray(e["p"]).T
    negative = negatives(e)
    weighted = (w > 0)[:, None] & (w > 0)[None, :] & ~np.eye(B, dtype=bool)
    best = np.where(negative, dots, -2).max(axis=1) < np.diag(dots)
    expected = {"accuracy": best, "positive": np.diag(dots), "masked": (weighted & ~negative).mean(axis=1)}
    agree(metrics, {name: np.sum(w * values) / w.sum() for name, values in sorted(expected.items())})


def test_impossible_settings_are_refused():
    e = plain_example()
    queries, products = ContrastiveInputs(e["q"], e["qid"]), ContrastiveInputs(e["p"], e["pid"])
    with pytest.raises(ValueError, match="bias"):
        contrastive_loss(queries, products, e["s"], weights=e["w"], loss_type="sigmoid")
    with pytest.raises(ValueError, match="tile is 0"):
        contrastive_loss(queries, products, e["s"], weights=e["w"], implementation="ring", tile=0)


@pytest.mark.parametrize("implementation", ["gather", "ring"])
def test_an_unknown_loss_type_is_an_error_with_the_known_names_in_every_implementation(implementation):
    e = plain_example()
    queries, products = ContrastiveInputs(e["q"], e["qid"]), ContrastiveInputs(e["p"], e["pid"])
    with pytest.raises(InputError, match=r"objectives\.loss_type is 'hinge', expected one of sigmoid, softmax"):
        contrastive_loss(queries, products, e["s"], weights=e["w"], loss_type="hinge", implementation=implementation)


def test_an_unknown_implementation_is_an_error_with_the_known_names():
    e = plain_example()
    queries, products = ContrastiveInputs(e["q"], e["qid"]), ContrastiveInputs(e["p"], e["pid"])
    with pytest.raises(InputError, match=r"objectives\.implementation is 'tree', expected one of gather, ring"):
        contrastive_loss(queries, products, e["s"], weights=e["w"], implementation="tree")


def test_settings_with_an_unknown_name_are_refused_before_training():
    with pytest.raises(InputError, match=r"objectives\.loss_type is 'hinge', expected one of sigmoid, softmax"):
        check_objectives(ObjectivesConfig(loss_type="hinge"))
    check_objectives(ObjectivesConfig())
