"""A tiny catalog, and a config that trains on it in seconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from make_jax.config import (
    AdaptationConfig,
    Config,
    DataConfig,
    ImageConfig,
    InputsConfig,
    ModelConfig,
    ObjectivesConfig,
    OptimConfig,
    TextConfig,
    TrainConfig,
)
from tests.tiny_catalog import write_catalog

TEXT = TextConfig(layers=1, width=16, heads=2, mlp_width=32, dropout=0.0)


def tiny_config(folder: Path, **train: Any) -> Config:
    """Returns the config of a run in `folder`/run on a catalog in `folder`/tiny, which is written if absent."""
    if not (folder / "tiny").exists():
        write_catalog(folder / "tiny", products=60)
    return Config(
        run=str(folder / "run"),
        data=DataConfig(catalog=str(folder / "tiny"), cache=str(folder / "cache")),
        inputs=InputsConfig(vocab_size=200, max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=16),
        model=ModelConfig(
            query=TEXT,
            title=TEXT,
            image=ImageConfig(layers=1, width=16, heads=2, mlp_width=32),
            adaptation=AdaptationConfig(gate_width=8),
            embedding_dim=16,
        ),
        objectives=ObjectivesConfig(title_contrast=0.5, image_contrast=0.5, key=0.1),
        optim=OptimConfig(warmup_steps=2, ema_decay=0.9),
        train=replace(
            TrainConfig(steps=6, batch_size=16, log_every=1, eval_every=3, save_every=2, eval_batch_size=16), **train
        ),
    )
