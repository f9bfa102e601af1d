"""MLM and MPM: predicting masked tokens of title and query, and masked patches of the image [blog].

    MLM = sum_t w_t CE(z_t, y_t) / sum_t w_t                t: masked tokens of queries and titles, w: of their row
    MPM = sum_i w_i l_i / sum_i w_i                         i: masked patches that are not flat, w: of their row

    contrastive   l_i = log sum_j E_ij exp(p_i . x_j / T) - p_i . x_i / T,  T = 0.1
    regression    l_i = mean over pixels of (p_i - x_i)^2   (He et al., arXiv 2111.06377)

That the contrastive variant beats regression is [sister]; this variant is [ours], after wav2vec 2.0 (Baevski et al.,
arXiv 2006.11477). p and x [F] are the predictions and targets of `model/masked.py`. j runs over the masked patches of
the same 16 rows: other places of the image and other images. Where 16 does not divide the rows that are encoded
together, their greatest common divisor is used. So devices exchange no patches and the device count changes nothing.
E_ij is 1 for j = i; otherwise 0 when j is flat, its row has weight 0, or it looks like i: the cosine of their pixels,
standardized to mean 0 and deviation 1, exceeds 0.95. Flat patches, mostly white background, are no targets either: they
cannot be distinguished.
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

LossAndMetrics = tuple[WeightedMean, dict[str, WeightedMean]]

TEMPERATURE = 0.1  # wav2vec 2.0
GROUP = 16  # rows whose patches are negatives of each other
MAX_COSINE = 0.95  # patches whose pixels have a larger cosine look the same


def mlm(out: Outputs, batch: Mapping[str, Array], apply: Apply) -> LossAndMetrics:
    """Returns the MLM loss and `mlm_accuracy` of a batch with masked tokens, over the texts that the model reads."""
    predicted = [apply(Make.predict_query, batch["query_masked"], batch["query_mask"], batch["query_labels"])]
    if out.states.title is not None:
        title = batch["title_masked"], batch["title_mask"], batch["title_labels"]
        product = batch["image"], batch["has_title"], batch["has_image"], out.states
        predicted.append(apply(Make.predict_title, *title, *product))
    return token_loss(predicted, batch["weight"])


def token_loss(predicted: Sequence[PredictedTokens], weights: Float[Array, "B"]) -> LossAndMetrics:
    """Returns the mean cross-entropy of the masked tokens of all texts, weighted by row.

    Metrics: `mlm_accuracy`, the weighted share of masked tokens whose logit is the largest.
    """
    losses, correct, total = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for logits, labels in predicted:
        token_weights = weights[:, None] * (labels >= 0).astype(weights.dtype)
        labels = jnp.maximum(labels, 0)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        losses += jnp.sum(token_weights * cross_entropy)
        correct += jnp.sum(token_weights * (jnp.argmax(logits, axis=-1) == labels).astype(weights.dtype))
        total += jnp.sum(token_weights)
    return WeightedMean(losses, total), {"mlm_accuracy": WeightedMean(correct, total)}


def mpm(batch: Mapping[str, Array], apply: Apply) -> LossAndMetrics:
    """Returns the MPM loss of a batch with `patch_mask`, in the variant of the model's head, and `mpm_accuracy`."""
    return patch_loss(apply(Make.predict_patches, batch["image"], batch["patch_mask"]), batch["weight"])


def patch_loss(predicted: PredictedPatches, weights: Float[Array, "B"]) -> LossAndMetrics:
    """Returns the mean loss of masked patches that are not flat, weighted by row.

    Metrics of the contrastive variant: `mpm_accuracy`, the weighted share of patches whose own target scores highest.
    """
    patch_weights = weights[:, None] * predicted.valid.astype(weights.dtype)
    if predicted.targets is None:
        errors = jnp.mean(jnp.square(predicted.predictions - predicted.pixels), axis=-1)
        return weighted_mean(errors, patch_weights), {}
    rows = math.gcd(GROUP, len(weights))

    def grouped(x: Array) -> Array:
        return x.reshape(len(weights) // rows, rows * x.shape[1], *x.shape[2:])

    patch_weights = grouped(patch_weights)
    logits = jnp.einsum("gif,gjf->gij", grouped(predicted.predictions), grouped(predicted.targets)) * (
        1.0 / TEMPERATURE
    )
    positive = jnp.eye(logits.shape[1], dtype=bool)[None]
    logits = jnp.where(positive | _negatives(grouped(predicted.pixels), patch_weights > 0), logits, EXCLUDED)
    own = jnp.einsum("gii->gi", logits)
    losses = jax.nn.logsumexp(logits, axis=-1) - own
    is_correct = (own >= jnp.max(logits, axis=-1)).astype(weights.dtype)
    return weighted_mean(losses, patch_weights), {"mpm_accuracy": weighted_mean(is_correct, patch_weights)}


def _negatives(pixels: Float[Array, "g n E"], weighted: Bool[Array, "g n"]) -> Bool[Array, "g n n"]:
    """Returns where patch j is a negative of patch i: it has a weight and does not look the same."""
    normalized = l2_normalize(pixels)
    return weighted[:, None, :] & (jnp.einsum("gie,gje->gij", normalized, normalized) <= MAX_COSINE)
