"""Small MAKE for ablations, minutes on two cores.

`benchmarks/study/ablations.py` changes it row by row.

Command:  python benchmarks/study/ablations.py run --catalog fashion-sparse-mini.zip
Machine:  two cores of an AMD EPYC, one per run
Reached:  docs/study.md
"""

from make_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ImageConfig,
    InputsConfig,
    MatchingConfig,
    ModelConfig,
    ObjectivesConfig,
    OptimConfig,
    TextConfig,
    TrainConfig,
)

text = TextConfig(layers=1, width=96, heads=2, mlp_width=384, dropout=0.0, activation="gelu_tanh")

config = Config(
    run="runs/study",
    data=DataConfig(),
    inputs=InputsConfig(
        vocab_size=4096,
        max_query_tokens=12,
        max_title_tokens=14,
        image_height=64,
        image_width=48,
        augment=AugmentConfig(min_crop_area=0.8, flip=True, brightness=0.05, contrast=0.05, saturation=0.05),
    ),
    model=ModelConfig(
        query=text,
        title=text,
        image=ImageConfig(
            layers=3, width=96, heads=2, mlp_width=384, patch_size=16, dropout=0.0, activation="gelu_tanh"
        ),
        matching=MatchingConfig(layers=0, width=96, heads=2, mlp_width=384),
        embedding_dim=96,
    ),
    objectives=ObjectivesConfig(title_contrast=0.5, image_contrast=0.5, key=0.1),
    optim=OptimConfig(learning_rate=2e-3, warmup_steps=30, weight_decay=0.05),
    train=TrainConfig(steps=150, batch_size=256, eval_every=0, save_every=100, log_every=10),
)
