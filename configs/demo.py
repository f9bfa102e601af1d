"""Packaged clip-art catalog, from scratch.

Same as `make demo`.

Command:  python train.py --config configs/demo.py && python eval.py runs/demo
Machine:  two cores of an AMD EPYC; 3 minutes of training, 5 minutes with installation
Reached:  test nDCG@10 0.396 joint, 0.449 joint + BM25 (docs/results/demo.json)
"""

from make_jax.config import (
    AdaptationConfig,
    AugmentConfig,
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

text = TextConfig(layers=1, width=128, heads=2, mlp_width=512, dropout=0.1, activation="gelu_tanh")

config = Config(
    run="runs/demo",
    data=DataConfig(),
    inputs=InputsConfig(
        vocab_size=4096,
        max_query_tokens=8,
        max_title_tokens=16,
        image_height=64,
        image_width=64,
        augment=AugmentConfig(min_crop_area=0.6, flip=True, brightness=0.1, contrast=0.1, saturation=0.1),
    ),
    model=ModelConfig(
        query=text,
        title=text,
        image=ImageConfig(
            layers=4, width=128, heads=2, mlp_width=512, patch_size=16, dropout=0.0, activation="gelu_tanh"
        ),
        adaptation=AdaptationConfig(weights="gate", gate_width=128),
        enrichment=False,
        keyword_dims=0,
        embedding_dim=128,
    ),
    objectives=ObjectivesConfig(title_contrast=0.5, image_contrast=1.0, keyword_masking=False, keyword_swaps=False),
    optim=OptimConfig(learning_rate=2e-3, warmup_steps=50, weight_decay=0.1, ema_decay=0.99),
    train=TrainConfig(steps=500, batch_size=128, eval_every=125, save_every=100, log_every=10),
)
