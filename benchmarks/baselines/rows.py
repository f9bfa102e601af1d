"""Baselines of the leaderboard, and the candidates that are compared on validation.

A candidate is one way to train a baseline. The candidate with the best validation nDCG@10 is the only one that is
evaluated on test. All see the same clicks; trained ones see as many as MAKE: `train.steps` x `train.batch_size` pairs
of the recipe.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.study.rows import NO_AUXILIARY, NO_KE

Kind = Literal["bm25", "minilm", "minilm-tuned", "run", "late-fusion"]
FASHION = ("fashion-full", "fashion-sparse-full")  # catalogs with clicks
ZERO_SHOT = "clothing5k"  # pictures alone; models that see pictures, trained on ...
TRAINED_ON = "fashion-sparse-full"  # ... this one


@dataclass(frozen=True)
class Candidate:
    """One way to train a baseline: settings of configs/fashion.py, or of benchmarks/baselines/minilm.py."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """A row of the leaderboard."""

    name: str
    label: str
    kind: Kind
    candidates: tuple[Candidate, ...] = (Candidate("only"),)
    systems: tuple[str, ...] = ("",)  # what is kept: "" the main system, "+bm25" joined with BM25
    ours: bool = False
    tuned_on: str = ""  # the catalog whose validation queries choose; "": the one that it is trained on
    trial: int = 0  # steps after which candidates are compared and FINALISTS of them trained in full; 0: all are

    @property
    def sees_pictures(self) -> bool:
        """Whether it can read a catalog whose titles are hidden."""
        return self.kind in ("run", "late-fusion")


FINALISTS = 2  # of a trial, which are compared again in full: a short trial flatters high learning rates
SLOWER, FASTER = {"optim.learning_rate": 1e-3}, {"optim.learning_rate": 4e-3}  # the recipe's is 2e-3
TWO_TOWER = NO_KE | NO_AUXILIARY
TOWERS_ALONE = NO_KE | {"objectives.qic": 0.0, "objectives.title_contrast": 1.0, "objectives.image_contrast": 1.0}

ROWS = (
    Baseline("make", "MAKE", "run", systems=("", "+bm25"), ours=True),
    Baseline("bm25", "BM25 over titles", "bm25"),
    Baseline("minilm", "MiniLM, zero-shot", "minilm", systems=("", "+bm25")),
    Baseline(
        "minilm-tuned",
        "MiniLM, fine-tuned on the clicks",
        "minilm-tuned",
        (
            Candidate("2e-5", {"learning_rate": 2e-5}),
            Candidate("1e-4", {"learning_rate": 1e-4}),
            Candidate("3e-4", {"learning_rate": 3e-4}),
            Candidate("1e-3", {"learning_rate": 1e-3}),
            Candidate("3e-3", {"learning_rate": 3e-3}),
        ),
        systems=("", "+bm25"),
        tuned_on="fashion-full",  # for both: a step takes several times as long as one of ours
        trial=50,  # steps
    ),
    Baseline(
        "two-tower",
        "two towers, mean of title and image",
        "run",
        (
            Candidate("joint-loss", TWO_TOWER),
            Candidate("joint-loss-slower", TWO_TOWER | SLOWER),
            Candidate("joint-loss-faster", TWO_TOWER | FASTER),
            Candidate("each-loss-too", NO_KE),
        ),
        systems=("", "+bm25"),
    ),
    Baseline(
        "late-fusion",
        "two towers trained apart, late fusion",
        "late-fusion",
        (
            Candidate("2e-3", TOWERS_ALONE),
            Candidate("1e-3", TOWERS_ALONE | SLOWER),
            Candidate("4e-3", TOWERS_ALONE | FASTER),
        ),
        systems=("", "+bm25"),
    ),
)
