"""The configuration that kill_matrix.py trains: the packaged catalog and a model with 0.1 s a step.

It uses everything that a checkpoint holds: dropout, averaged parameters, keyword heads fitted by each evaluation.
"""

from make_jax.config import (
    AdaptationConfig,
    Config,
    ImageConfig,
    InputsConfig,
    ModelConfig,
    ObjectivesConfig,
    OptimConfig,
    TextConfig,
    TrainConfig,
)

text = TextConfig(layers=1, width=32, heads=2, mlp_width=64, dropout=0.1)

config = Config(
    run="runs/kill",
    inputs=InputsConfig(vocab_size=500, max_query_tokens=6, max_title_tokens=12, image_height=32, image_width=32),
    model=ModelConfig(
        query=text,
        title=text,
        image=ImageConfig(layers=1, width=32, heads=2, mlp_width=64),
        adaptation=AdaptationConfig(gate_width=16),
        embedding_dim=32,
    ),
    objectives=ObjectivesConfig(key=0.1),
    optim=OptimConfig(warmup_steps=4, ema_decay=0.9),
    train=TrainConfig(steps=120, batch_size=16, log_every=1, eval_every=100, save_every=60, max_to_keep=3),
)
