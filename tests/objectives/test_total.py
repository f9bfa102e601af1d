"""The sum of the objectives: what the config says reaches the contrastive loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import ObjectivesConfig
from make_jax.model.make import EncodedQuery, Outputs
from make_jax.model.modal_adaptation import Adapted
from make_jax.objectives.bank import Bank
from make_jax.objectives.total import make_loss
from make_jax.runs.mesh import make_mesh
from tests.objectives.contrasts import BANKED, B, agree, loss_of, together

STEPS = BANKED // 8  # of the bank, for 8 rows each


def outputs(e):
    """Of the model, as far as the contrasts read them."""

    def query(vectors):
        return EncodedQuery(vectors, None, None, None)

    product = Adapted(e["p"], None, title=e["swap"])
    return Outputs(query(e["q"]), query(e["swap"]), product, None, e["s"], e["b"])


@pytest.mark.parametrize("form", ["gather", "ring"])
def test_contrasts_are_of_the_form_that_the_config_names(form):
    e = together()
    batch = {
        "query_id": e["qid"],
        "product_id": e["pid"],
        "query_keywords": e["qk"],
        "product_keywords": e["pk"],
        "weight": e["w"],
        "has_title": jnp.ones(B, bool),
        "swap_mask": (e["sid"] >= 0)[:, None],
    }
    bank = Bank(*(x.reshape(STEPS, 8, *x.shape[1:]) for x in (e["bank"], e["bid"], e["bk"])))
    config = ObjectivesConfig(margin=0.2, title_contrast=0.5, form=form, tile=2)
    loss = make_loss(config, make_mesh(fsdp=2))
    lowered = jax.jit(lambda e: loss(outputs(e), batch, bank, lambda *_: None, jax.random.key(0))).lower(e)
    assert ("collective_permute" in lowered.as_text()) == (form == "ring")
    total, metrics = lowered.compile()(e)
    (qic, told), _ = loss_of("gather", 0)(e)
    agree(metrics["qic"], qic)
    agree(metrics["accuracy"], told["accuracy"])
    np.testing.assert_allclose(total, metrics["qic"] + 0.5 * metrics["title_contrast"], rtol=1e-6)
