"""A shop without a search log: 300 to 100,000 products, no clicks.

Training queries are derived from titles, attributes and categories (catalog/derived_queries.py); text encoders start
from all-MiniLM-L6-v2, so that words which no title contains are understood too.

Command:  python -m make_jax.catalog import FORMAT SOURCE shop     (docs/importing.md)
          python train.py --config configs/shop.py --data.catalog shop --run runs/shop
          Offline: --model.query.init-from FOLDER --model.title.init-from FOLDER, a local copy of the model
Machine:  two cores; 5 min 50 s from start to end on fashion-ci, 1,691 training products
Reached:  test nDCG@10, joint, one seed: openclipart 0.516 (BM25 0.236, MiniLM 0.461, joined 0.472), fashion-sparse-mini
          0.588 (0.493, 0.454, 0.516); with their clicks 0.584 and 0.795 (docs/catalog.md, Without clicks)
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
    run="runs/shop",
    data=DataConfig(queries="derived"),
    inputs=InputsConfig(
        new_characters=2000,  # MiniLM has few Chinese ones
        max_query_tokens=12,
        max_title_tokens=24,
        image_height=64,
        image_width=64,
        augment=AugmentConfig(min_crop_area=0.8, flip=True, brightness=0.05, contrast=0.05, saturation=0.05),
    ),
    model=ModelConfig(
        query=text,
        title=text,
        image=ImageConfig(
            layers=4, width=128, heads=2, mlp_width=512, patch_size=16, dropout=0.0, activation="gelu_tanh"
        ),
        adaptation=AdaptationConfig(cross_attention=False),
        keyword_scale=3.0,  # below the default: paraphrases match a wrong keyword more often
        embedding_dim=384,  # the width of the encoders: step 0 retrieves titles as well as MiniLM does
    ),
    objectives=ObjectivesConfig(title_contrast=0.5, image_contrast=0.5, key=0.1),
    optim=OptimConfig(
        learning_rate=2e-3,
        warmup_steps=20,
        weight_decay=0.05,
        lr_multipliers=(
            (r"^title_encoder/", 0.0),  # frozen: keeps the words of other shops, halves the compute
            (r"^query_encoder/word", 0.3),  # new characters start untrained
            (r"query_(encoder|projection)/", 0.05),
            (r"title_projection", 0.05),
        ),
    ),
    train=TrainConfig(steps=120, batch_size=128, eval_every=0, save_every=60, log_every=10),
)
