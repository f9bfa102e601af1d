"""Fine-tunes a sentence-transformers model on the clicks of a catalog: queries with titles of clicked products.

    python benchmarks/baselines/minilm.py MODEL CATALOG OUT [--learning-rate 2e-5] [--steps 700] [--batch-size 256]

Two CPU cores, about an hour; needs the extra [models] and `pip install datasets accelerate`. Settings follow the
sentence-transformers documentation for pairs: MultipleNegativesRankingLoss (in-batch negatives, cosine x 20), no
duplicate query or title in a batch, warm-up over a tenth of the steps. The same command resumes from the last
checkpoint, saved every 100 steps; OUT is written at the end.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import folder_atomically, write_atomically

SAVE_EVERY = 100


def fine_tune(model: str, catalog: Catalog, out: Path, learning_rate: float, steps: int, batch_size: int) -> None:
    """Writes the fine-tuned model to `out`, with training.json; checkpoints are in OUT.unfinished."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers
    from transformers import TrainerCallback

    titles = {product.id: product.title for product in catalog.products}
    pairs = [(click.query, titles[click.product]) for click in catalog.clicks if titles[click.product]]
    if not pairs:
        raise InputError(f"{catalog.path}: no click on a product with a title, which is what this model reads")
    work = out.with_name(f"{out.name}.unfinished")
    loaded = SentenceTransformer(model, local_files_only=True)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=steps // 10,
        bf16=True,  # three times as fast on the CPUs that have it
        use_cpu=not torch.cuda.is_available(),
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        logging_steps=10,
        report_to="none",
        seed=0,
    )
    data = Dataset.from_dict({"anchor": [query for query, _ in pairs], "positive": [title for _, title in pairs]})
    clock = work.with_name(f"{work.name}.seconds")
    before = float(clock.read_text("utf-8")) if clock.exists() else 0.0
    begun = time.monotonic()

    class Clock(TrainerCallback):
        """Stores the elapsed seconds with each checkpoint, for resumed runs."""

        def on_save(self, *_: object, **__: object) -> None:
            write_atomically(clock, str(before + time.monotonic() - begun))

    loss = MultipleNegativesRankingLoss(loaded)
    trainer = SentenceTransformerTrainer(loaded, arguments, data, loss=loss, callbacks=[Clock()])
    complete = [path.parent for path in work.glob("checkpoint-*/trainer_state.json")]  # written last
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    settings = {"learning_rate": learning_rate, "steps": steps, "batch_size": batch_size, "pairs": len(pairs)}
    with folder_atomically(out) as new:
        loaded.save(str(new))
        write_atomically(new / "training.json", json.dumps(settings | {"seconds": before + time.monotonic() - begun}))
    shutil.rmtree(work, ignore_errors=True)
    clock.unlink(missing_ok=True)


def main() -> None:
    """Trains unless OUT exists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of sentence-transformers")
    parser.add_argument("catalog")
    parser.add_argument("out", type=Path)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch-size", type=int, default=256)
    args = parser.parse_args()
    if not args.out.exists():
        catalog = Catalog.load(args.catalog)
        fine_tune(args.model, catalog, args.out, args.learning_rate, args.steps, args.batch_size)


if __name__ == "__main__":
    exit_cleanly(main)
