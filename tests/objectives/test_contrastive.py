"""The contrastive loss: every form against the formula and against each other, in value and gradient."""

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

PLAIN = ("gather", 0)
FORMS = [*(("gather", n) for n in (1, 2, 4, 8)), *(("ring", n) for n in (0, 1, 2, 4, 8))]
TILES = {0: 7, 1: 256, 2: 5, 4: 4, 8: 2}  # of the ring, by devices: 4 of 24, 12, 6, 3 rows are not divided
CASES = {"nothing": {}, **options(), "together": together()}
NEGATIVE = [name for name in CASES if name not in ("no valid negative", "all weights zero")]


def example(case: str):
    return plain_example() | CASES[case]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("case", NEGATIVE)
def test_plain_form_equals_the_formula_in_value_and_gradient(kind, case):
    e = example(case)
    (value, _), gradients = loss_of(*PLAIN, kind)(e)
    agree((value, gradients), formula(kind, 0.2)(e))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("form", "devices"), FORMS)
def test_softmax_forms_equal_the_plain_form_in_value_and_gradient(form, devices, case):
    agree(loss_of(form, devices, tile=TILES[devices])(example(case)), loss_of(*PLAIN)(example(case)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("form", "devices"), [("gather", 4), ("ring", 0), ("ring", 2), ("ring", 8)])
def test_sigmoid_forms_equal_the_plain_form_in_value_and_gradient(form, devices, case):
    found = loss_of(form, devices, "sigmoid", tile=TILES[devices])(example(case))
    agree(found, loss_of(*PLAIN, "sigmoid")(example(case)))


@pytest.mark.parametrize(("form", "devices"), [("gather", 8), ("ring", 0), ("ring", 8)])
def test_without_margin_swaps_and_keywords_forms_equal_the_formula(form, devices):
    e = example("duplicates")
    (value, _), gradients = loss_of(form, devices, margin=0.0, bare=True)(e)
    agree((value, gradients), formula("softmax", 0.0)(e))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("form", "devices"), [PLAIN, ("gather", 4), ("ring", 2)])
def test_all_weights_zero_gives_loss_zero_and_finite_gradients(form, devices, kind):
    (value, _), gradients = loss_of(form, devices, kind, tile=TILES[devices])(together() | CASES["all weights zero"])
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients.values())


@pytest.mark.parametrize(("form", "devices"), [PLAIN, ("ring", 8)])
def test_row_with_no_valid_negative_has_loss_zero(form, devices):
    (value, _), gradients = loss_of(form, devices)(example("no valid negative"))
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients.values())


@pytest.mark.parametrize(("form", "devices"), [PLAIN, ("ring", 2)])
def test_weight_zero_row_is_neither_anchor_nor_negative(form, devices):
    e = together()
    loss = loss_of(form, devices, tile=TILES[devices])
    other = {name: e[name].at[3].set(e[name][3, ::-1]) for name in ("q", "swap")}  # weight 0
    other |= {"p": e["p"].at[15].set(e["p"][15, ::-1])}  # weight 0
    assert loss(e | other)[0][0] == loss(e)[0][0]
    other["q"] = e["q"].at[4].set(e["q"][4, ::-1])  # weight 1
    assert loss(e | other)[0][0] != loss(e)[0][0]


@pytest.mark.parametrize(("form", "devices"), [PLAIN, ("ring", 2)])
def test_swap_is_a_negative_of_its_product_and_of_no_query(form, devices):
    e = example("swaps")
    loss = loss_of(form, devices, "sigmoid", tile=TILES[devices])  # a sum of pairs, each by itself
    gradients, others = loss(e)[1], loss(example("nothing"))[1]
    there = np.asarray(e["sid"]) >= 0
    assert np.asarray(gradients["swap"])[there].any(axis=1).all() and not np.asarray(gradients["swap"])[~there].any()
    assert (np.asarray(gradients["p"] != others["p"]).any(axis=1) == there).all()
    np.testing.assert_array_equal(np.asarray(gradients["q"]), np.asarray(others["q"]))


@pytest.mark.parametrize(("form", "devices"), [PLAIN, ("ring", 8)])
def test_bfloat16_gradients_are_near_and_scale_100_stays_finite(form, devices):
    e = together() | CASES["scale 100"]
    rounded = e | {name: e[name].astype(jnp.bfloat16) for name in ("q", "p", "swap")}
    widened = rounded | {name: rounded[name].astype(jnp.float32) for name in ("q", "p", "swap")}
    (value, _), coarse = loss_of(form, devices)(rounded)
    (wanted, _), fine = loss_of(*PLAIN)(widened)
    agree(value, wanted, 2**-7)
    agree(jax.tree.map(lambda x: np.asarray(x, np.float32), coarse), fine, 2**-7)


def test_metrics_are_told_of_what_the_loss_sees():
    e = together()
    (_, metrics), _ = loss_of(*PLAIN)(e)
    w, dots = np.asarray(e["w"]), np.asarray(e["q"]) @ np.asarray(e["p"]).T
    found = negatives(e)
    live = (w > 0)[:, None] & (w > 0)[None, :] & ~np.eye(B, dtype=bool)
    best = np.where(found, dots, -2).max(axis=1) < np.diag(dots)
    wanted = {"accuracy": best, "positive": np.diag(dots), "masked": (live & ~found).mean(axis=1)}
    agree(metrics, {name: np.sum(w * values) / w.sum() for name, values in sorted(wanted.items())})


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
