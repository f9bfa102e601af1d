"""MLM and MPM: what stood at hidden tokens of title and query, what stood in hidden patches of the picture [blog].

    MLM = sum_t w_t CE(z_t, y_t) / sum_t w_t                t: hidden tokens of queries and titles, w: of their row
    MPM = sum_i w_i l_i / sum_i w_i                         i: hidden patches that are not flat, w: of their row

    contrastive   l_i = log sum_j E_ij exp(p_i . x_j / T) - p_i . x_i / T,  T = 0.1
    regression    l_i = mean over pixels of (p_i - x_i)^2   (He et al., arXiv 2111.06377)

That the contrastive form beats regression is [sister]; this form is [ours], after wav2vec 2.0 (Baevski et al., arXiv
2006.11477). p and x [F] are the predictions and targets of `model/masked.py`. j goes over the hidden patches of the
same 16 rows, so over other places of the picture and other pictures (of as many as divide the rows that are encoded at
once, where 16 does not): no device needs another's patches, and device counts change nothing. E_ij is 1 for j = i; else
0 when j is flat, its row has weight 0, or it looks as i does: the cosine of their pixels, brought to mean 0 and
deviation 1, is more than 0.95. A flat patch, white background above all, is nobody's target either: it cannot be told
from other flat ones.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from make_jax.model.make import Apply, Make, Outputs
from make_jax.model.masked import PredictedPatches, PredictedTokens
from make_jax.model.transformer import l2_normalize
from make_jax.objectives.false_negatives import EXCLUDED
from make_jax.objectives.weighted_means import WeightedMean, weighted_mean

Found = tuple[WeightedMean, dict[str, WeightedMean]]  # the loss and its metrics

TEMPERATURE = 0.1  # wav2vec 2.0
GROUP = 16  # rows whose patches are each other's negatives
ALIKE = 0.95  # the cosine of pixels above which two patches look the same


def mlm(out: Outputs, batch: Mapping[str, Array], apply: Apply) -> Found:
    """The loss of a batch that has `query_masked` and so on, over the texts that the model reads; `mlm_accuracy`."""
    said = [apply(Make.predict_query, batch["query_masked"], batch["query_mask"], batch["query_labels"])]
    if out.states.title is not None:
        title = batch["title_masked"], batch["title_mask"], batch["title_labels"]
        product = batch["image"], batch["has_title"], batch["has_image"], out.states
        said.append(apply(Make.predict_title, *title, *product))
    return token_loss(said, batch["weight"])


def token_loss(said: Sequence[PredictedTokens], weights: Float[Array, "B"]) -> Found:
    """The mean cross-entropy of hidden tokens of all texts, weighted by row.

    Metrics: `mlm_accuracy`, the weighted share of hidden tokens whose logit is the largest.
    """
    losses, right, total = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for logits, labels in said:
        counted = weights[:, None] * (labels >= 0).astype(weights.dtype)
        labels = jnp.maximum(labels, 0)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        losses += jnp.sum(counted * cross_entropy)
        right += jnp.sum(counted * (jnp.argmax(logits, axis=-1) == labels).astype(weights.dtype))
        total += jnp.sum(counted)
    return WeightedMean(losses, total), {"mlm_accuracy": WeightedMean(right, total)}


def mpm(batch: Mapping[str, Array], apply: Apply) -> Found:
    """The loss of a batch that has `patch_mask`, in the form that the model's head has, and `mpm_accuracy`."""
    return patch_loss(apply(Make.predict_patches, batch["image"], batch["patch_mask"]), batch["weight"])


def patch_loss(said: PredictedPatches, weights: Float[Array, "B"]) -> Found:
    """The mean loss of hidden patches that are not flat, weighted by row.

    Metrics, of the contrastive form: `mpm_accuracy`, the weighted share of patches that are told from all others.
    """
    counted = weights[:, None] * said.there.astype(weights.dtype)
    if said.targets is None:
        return weighted_mean(jnp.mean(jnp.square(said.predictions - said.pixels), axis=-1), counted), {}
    rows = math.gcd(GROUP, len(weights))

    def grouped(x: Array) -> Array:
        return x.reshape(len(weights) // rows, rows * x.shape[1], *x.shape[2:])

    counted = grouped(counted)
    logits = jnp.einsum("gif,gjf->gij", grouped(said.predictions), grouped(said.targets)) * (1.0 / TEMPERATURE)
    positive = jnp.eye(logits.shape[1], dtype=bool)[None]
    logits = jnp.where(positive | _negatives(grouped(said.pixels), counted > 0), logits, EXCLUDED)
    own = jnp.einsum("gii->gi", logits)
    losses = jax.nn.logsumexp(logits, axis=-1) - own
    best = (own >= jnp.max(logits, axis=-1)).astype(weights.dtype)
    return weighted_mean(losses, counted), {"mpm_accuracy": weighted_mean(best, counted)}


def _negatives(pixels: Float[Array, "g n E"], there: Bool[Array, "g n"]) -> Bool[Array, "g n n"]:
    """Where patch j is a negative of patch i: it is there and does not look the same."""
    shape = l2_normalize(pixels)
    return there[:, None, :] & (jnp.einsum("gie,gje->gij", shape, shape) <= ALIKE)
