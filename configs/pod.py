"""ViT-B/16 and two BERT-base, batch 65,536.

For a pod; images of 224x224 pixels.

Command:  python train.py --config configs/pod.py --data.catalog PATH, in every process (docs/scaling.md)
Plan:     python train.py --config configs/pod.py --dry-run --device v5e --count 256
Machine:  256 TPU v5e or 64 v5p; compiled for both, fits in memory (docs/scaling.md); never run
"""

from make_jax.config import (
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

text = TextConfig(layers=12, width=768, heads=12, mlp_width=3072, dropout=0.1)

config = Config(
    run="runs/pod",
    data=DataConfig(workers=16, prefetch=2),
    inputs=InputsConfig(
        vocab_size=30522,
        max_query_tokens=32,
        max_title_tokens=64,
        image_height=224,
        image_width=224,
        max_keywords=4096,
        augment=AugmentConfig(min_crop_area=0.6, flip=True, brightness=0.1, contrast=0.1, saturation=0.1),
    ),
    model=ModelConfig(
        query=text,
        title=text,
        image=ImageConfig(layers=12, width=768, heads=12, mlp_width=3072, patch_size=16, dropout=0.0),
        embedding_dim=512,
        dtype="bfloat16",
    ),
    objectives=ObjectivesConfig(implementation="ring", tile=256, title_contrast=0.5, image_contrast=0.5, key=0.1),
    optim=OptimConfig(learning_rate=1e-3, warmup_steps=2_000, weight_decay=0.1, beta2=0.95),
    train=TrainConfig(
        steps=20_000, batch_size=65_536, eval_every=2_000, save_every=500, log_every=20, micro_batch_size=64, fsdp=16
    ),
)
