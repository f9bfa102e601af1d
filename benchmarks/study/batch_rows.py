"""Rows of the batch size study: the same number of examples in fewer, larger steps.

Each batch size has its own learning rate, tuned on validation; the study's recipe was tuned at 256.
"""

from benchmarks.study.rows import Row

EXAMPLES = 163_840  # of every row
RATES = {256: (1e-3, 2e-3, 4e-3), 1024: (2e-3, 4e-3, 8e-3), 4096: (2e-3, 4e-3, 8e-3)}  # learning rates by batch
WARMUP = 10  # one warm-up step per so many steps


def _row(batch: int, rate: float) -> Row:
    steps = EXAMPLES // batch
    changes = {"train.batch_size": batch, "train.steps": steps}
    changes |= {"optim.learning_rate": rate, "optim.warmup_steps": max(1, steps // WARMUP)}
    return Row(f"batch-{batch}-rate-{rate:g}", f"{batch:,} rows, learning rate {rate:g}", changes)


BATCH_ROWS = tuple(_row(batch, rate) for batch, rates in RATES.items() for rate in rates)
