"""Histograms of the modal weights: the share of the title in each product vector."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from make_jax.evaluation.evaluate import Evaluation
from make_jax.files import write_atomically

_BINS = 40
_MAX_PANELS = 6


def weight_groups(evaluation: Evaluation) -> dict[str, Float32[np.ndarray, "n"]]:
    """Returns w_title of the products with title and image: all, then by the words dropped from the title, if known.

    Empty for a model without weights, or with the same weight for all products.
    """
    if evaluation.embeddings is None:
        return {}
    both = [i for i, product in enumerate(evaluation.products) if product.title and product.image is not None]
    title = evaluation.embeddings.weights[:, 0]
    groups = {"all": both}
    if not both or np.ptp(title[both]) == 0:
        return {}
    dropped = [evaluation.products[i].dropped for i in both]
    if any(dropped):
        groups["nothing dropped"] = [i for i, words in zip(both, dropped, strict=True) if not words]
        for word in sorted({word for words in dropped for word in words}):
            groups[f"{word} dropped"] = [i for i, words in zip(both, dropped, strict=True) if word in words]
    return {name: title[members] for name, members in groups.items() if members}


def draw_weights(evaluation: Evaluation, path: Path) -> None:
    """Writes a PNG with a histogram of w_title for each group, at most six, on the same scale."""
    from matplotlib.figure import Figure

    groups = dict(list(weight_groups(evaluation).items())[:_MAX_PANELS])
    if not groups:
        return
    figure = Figure(figsize=(6.4, 0.8 + 1.5 * len(groups)), dpi=120, layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, (name, weights) in zip(panels, groups.items(), strict=True):
        share = np.full(len(weights), 100 / len(weights))
        panel.hist(weights, bins=_BINS, range=(0, 1), weights=share, color="#4477aa")
        mean = float(weights.mean())
        panel.axvline(mean, color="#222222", linewidth=1.2)
        panel.set_title(f"{name}: {len(weights):,} products, mean {mean:.2f}", fontsize=10, loc="left")
        panel.set_ylabel("% of products", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlim(0, 1)
    panels[-1].set_xlabel("w_title: share of the title in the product vector (w_image = 1 - w_title)", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
