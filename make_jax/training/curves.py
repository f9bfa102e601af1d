"""Training curves of a run as a PNG file."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from make_jax.errors import InputError
from make_jax.files import write_atomically
from make_jax.training.metric_writers.jsonl import read_metrics

if TYPE_CHECKING:
    import matplotlib.axes

Series = tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]  # steps, values


def draw_curves(metrics_jsonl: Path, out_png: Path) -> None:
    """Plots loss, validation nDCG@10, learning rate and logit scale of a `metrics.jsonl` into `out_png`, atomically.

    A panel without data is left out. Raises InputError if there is nothing to plot.
    """
    records = read_metrics(metrics_jsonl)
    names = list(dict.fromkeys(name for record in records for name in record))
    validation = [name for name in names if "ndcg@10" in name.lower()]
    panels: list[str] = [name for name in ("loss", "ndcg", "schedule") if _has_data(name, names, validation)]
    if not panels:
        raise InputError(f"{metrics_jsonl}: no loss, nDCG@10, learning rate or logit scale to plot")

    from matplotlib.figure import Figure  # slow to import, and only this picture needs it

    figure = Figure(figsize=(9, 0.6 + 2.7 * len(panels)), dpi=120, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, ax in zip(panels, axes, strict=True):
        if panel == "loss":
            _draw_loss(ax, _series(records, "loss"))
        elif panel == "ndcg":
            _draw_validation(ax, {name: _series(records, name) for name in validation})
        else:
            _draw_schedule(ax, _series(records, "learning_rate"), _series(records, "logit_scale"))
        ax.grid(alpha=0.25)
    axes[0].set_title(metrics_jsonl.resolve().parent.name, loc="left")
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(left=0)

    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(out_png, picture.getvalue())


def smooth(values: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " points"]:
    """Returns the bias-corrected exponential moving average over about a twentieth of all points."""
    decay = 1 - 1 / max(1.0, len(values) / 20)
    smoothed, total, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        total, weight = decay * total + value, decay * weight + 1
        smoothed[i] = total / weight
    return smoothed


def split_evaluations(points: Series) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the points in parts of increasing steps; at least one part, which may be empty.

    A step that is not above the one before it was evaluated again, with another `model.keyword_scale`: values of
    different scales are not comparable, so no line joins them.
    """
    steps, values = points
    starts = np.flatnonzero(np.diff(steps) <= 0) + 1
    return list(zip(np.split(steps, starts), np.split(values, starts), strict=True))


def _has_data(panel: str, names: list[str], validation: list[str]) -> bool:
    if panel == "ndcg":
        return bool(validation)
    return "loss" in names if panel == "loss" else bool({"learning_rate", "logit_scale"} & set(names))


def _series(records: list[dict[str, Any]], name: str) -> Series:
    points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    steps, values = np.asarray(points, np.float64).reshape(-1, 2).T
    return steps, values


def _draw_loss(ax: "matplotlib.axes.Axes", loss: Series) -> None:
    ax.plot(*loss, color="tab:blue", alpha=0.3, linewidth=0.8, label="as logged")
    ax.plot(loss[0], smooth(loss[1]), color="tab:blue", linewidth=1.8, label="smoothed")
    ax.set_ylabel("training loss [nats]")
    ax.legend(loc="upper right", fontsize="small")


def _draw_validation(ax: "matplotlib.axes.Axes", series: dict[str, Series]) -> None:
    for name, points in series.items():
        *earlier, (steps, values) = split_evaluations(points)
        best = f" (best {values.max():.3f})" if len(values) else ""
        [line] = ax.plot(steps, values, marker="o", markersize=3.5, label=name + best)
        for steps, values in earlier:
            ax.plot(steps, values, marker="o", markersize=3.5, color=line.get_color(), alpha=0.4)
    ax.set_ylabel("validation nDCG@10 [0 to 1]")
    # From 0, with room above the best: where that is the first value, the axis would cut its marker in two.
    highest = max((float(values.max()) for _, values in series.values() if len(values)), default=0.0)
    ax.set_ylim(0, 1.08 * highest or 1.0)
    ax.legend(loc="lower right", fontsize="small")


def _draw_schedule(ax: "matplotlib.axes.Axes", learning_rate: Series, logit_scale: Series) -> None:
    ax.plot(*learning_rate, color="tab:green")
    ax.set_ylabel("learning rate [per step]", color="tab:green")
    ax.ticklabel_format(axis="y", style="scientific", scilimits=(-2, 3))
    ax.set_ylim(bottom=0)
    right = ax.twinx()
    right.plot(*logit_scale, color="tab:red", linestyle="--")
    right.set_ylabel("logit scale [factor]", color="tab:red")
