"""The example of docs/extending.md: a contrastive loss is one file and one table entry."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.objectives.contrastive import LOSS_TYPES
from make_jax.objectives.false_negatives import EXCLUDED
from tests.conftest import ROOT
from tests.objectives.contrasts import LEARNED, agree, loss_of, negatives, options, plain_example, together

EXAMPLES = {"plain": {}, **options()}


@pytest.fixture
def dcl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the code blocks of the section as the page describes."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.split("## A contrastive loss\n")[1].split("\n## ")[0]
    new_file, entry = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    monkeypatch.setitem(LOSS_TYPES, "dcl", None)  # removed from the table after the test
    namespace = {"LOSS_TYPES": LOSS_TYPES}
    exec(new_file + entry, namespace)


def reference(a, e):
    """DCL over the matrix of all logits."""
    keep = jnp.asarray(negatives(e))
    logits = jnp.exp(a["s"]) * (jnp.dot(a["q"], a["p"].T, precision="highest") - 0.2 * jnp.eye(len(keep)))
    masked = jnp.where(keep, logits, EXCLUDED)
    swapped = jnp.where(e["sid"] >= 0, jnp.exp(a["s"]) * jnp.sum(a["swap"] * a["p"], axis=1), EXCLUDED)
    by_query, by_product = (jax.nn.logsumexp(x, 1) for x in (masked, jnp.concatenate([masked, swapped[None]], 0).T))
    terms = [jnp.where(x > EXCLUDED / 2, x - jnp.diag(logits), 0.0) for x in (by_query, by_product)]
    return jnp.sum(e["w"] * sum(terms)) / (2 * jnp.sum(e["w"]))


@pytest.mark.parametrize("example", ["plain", "together", "duplicates", "keywords", "padding rows", "swaps"])
@pytest.mark.parametrize(("implementation", "devices"), [("gather", 0), ("gather", 8), ("ring", 0), ("ring", 8)])
def test_dcl_of_the_page_equals_the_reference_in_value_and_gradient(dcl, implementation, devices, example):
    e = together() if example == "together" else plain_example() | EXAMPLES[example]
    expected = jax.value_and_grad(lambda a: reference(a, e))({name: e[name] for name in LEARNED})
    (value, _), gradients = loss_of(implementation, devices, "dcl")(e)
    agree((value, gradients), expected)


@pytest.mark.parametrize(("implementation", "devices"), [("gather", 8), ("ring", 8)])
def test_dcl_of_rows_without_negatives_is_zero(dcl, implementation, devices):
    (value, _), gradients = loss_of(implementation, devices, "dcl")(plain_example() | EXAMPLES["no valid negative"])
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients.values())
