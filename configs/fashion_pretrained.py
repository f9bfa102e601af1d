"""fashion, with text encoders from all-MiniLM-L6-v2.

Command:  python train.py --config configs/fashion_pretrained.py --data.catalog fashion-full.zip --run runs/pretrained
          Offline: --model.query.init-from FOLDER --model.title.init-from FOLDER, a local copy of the model
Machine:  one core of a busy AMD EPYC; 31 minutes of training
Reached:  test nDCG@10 on attr English, attr Chinese, held-out combinations in English (docs/results/pretrained.json):
          sparse titles 0.814, 0.836, 0.789; complete titles 0.916, 0.919, 0.902; hand-written English validation
          queries 0.551 and 0.614 (from scratch in about the same time 0.315 and 0.358; MiniLM alone 0.403 and 0.545)
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

text = TextConfig(
    layers=6,
    width=384,
    heads=12,
    mlp_width=1536,
    dropout=0.0,
    layer_norm_eps=1e-12,
    activation="gelu",
    init_from="sentence-transformers/all-MiniLM-L6-v2",
)

config = Config(
    run="runs/fashion-pretrained",
    data=DataConfig(),
    inputs=InputsConfig(
        new_characters=2000,  # MiniLM has few Chinese ones
        max_query_tokens=12,
        max_title_tokens=16,
        image_height=64,
        image_width=48,
        augment=AugmentConfig(min_crop_area=0.8, flip=True, brightness=0.05, contrast=0.05, saturation=0.05),
    ),
    model=ModelConfig(
        query=text,
        title=text,
        image=ImageConfig(
            layers=4, width=128, heads=2, mlp_width=512, patch_size=16, dropout=0.0, activation="gelu_tanh"
        ),
        keyword_scale=3.0,  # below the default: paraphrases match a wrong keyword more often
        embedding_dim=384,  # the width of the encoders: step 0 retrieves titles as well as MiniLM does
    ),
    objectives=ObjectivesConfig(title_contrast=0.5, image_contrast=0.5, key=0.1),
    optim=OptimConfig(
        learning_rate=2e-3,
        warmup_steps=20,
        weight_decay=0.05,
        lr_multipliers=(
            (r"^title_encoder/", 0.0),  # frozen: keeps words without clicks, halves the compute
            (r"^query_encoder/word", 0.3),  # new characters start untrained
            (r"query_(encoder|projection)/", 0.05),
            (r"title_projection", 0.05),
        ),
    ),
    train=TrainConfig(steps=200, batch_size=256, eval_every=0, save_every=100, log_every=10),
)
