"""Every setting of a run, as frozen dataclasses: one comment a field, with its unit. Imports no jax.

A recipe in `configs/` is a Python file that defines `config = Config(...)`. It names no data path. A run stores its
resolved config as JSON (`to_json`), and evaluation and conversion read that (`from_json`): they never execute Python
from a run.
"""

import dataclasses
import difflib
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from make_jax.errors import InputError


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from and how they are read."""

    catalog: str = ""  # folder or .zip in the catalog format; "" is the catalog inside the package
    cache: str = ""  # folder for built ArrayRecord shards; "" is $XDG_CACHE_HOME/make_jax or ~/.cache/make_jax
    workers: int = 0  # Grain worker processes; 0 reads with threads in the training process
    prefetch: int = 2  # batches made ready ahead of the step, per process


@dataclass(frozen=True)
class AugmentConfig:
    """What training does to a picture. Evaluation does none of it."""

    crop_area: float = 0.7  # least share of the picture that a random crop keeps; 1 does not crop
    flip: bool = True  # mirror left to right, half of the time
    brightness: float = 0.1  # largest relative change
    contrast: float = 0.1  # largest relative change
    saturation: float = 0.1  # largest relative change; colour words depend on it, so keep it small


@dataclass(frozen=True)
class InputsConfig:
    """What the model sees. Travels with the checkpoint: evaluation uses the same."""

    tokenizer: str = ""  # local Hugging Face tokenizer folder; "" trains a WordPiece on the catalog
    vocabulary: int = 8192  # most word pieces of a trained tokenizer
    query_tokens: int = 16  # longest query, in tokens, special tokens included
    title_tokens: int = 32  # longest title, in tokens, special tokens included
    image_height: int = 64  # pixels
    image_width: int = 64  # pixels
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # subtracted, per channel, of values in [0, 1]
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)  # divided by, per channel
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TextConfig:
    """A BERT-shaped encoder."""

    layers: int = 3
    width: int = 160
    heads: int = 4
    mlp_width: int = 640
    dropout: float = 0.1  # share of activations dropped in training
    eps: float = 1e-12  # layer norm


@dataclass(frozen=True)
class ImageConfig:
    """A ViT-shaped encoder."""

    layers: int = 4
    width: int = 160
    heads: int = 4
    mlp_width: int = 640
    patch: int = 8  # pixels a side
    dropout: float = 0.0  # share of activations dropped in training
    eps: float = 1e-12  # layer norm


@dataclass(frozen=True)
class AdaptationConfig:
    """Modal Adaptation: how title and image become one product vector."""

    modalities: Literal["both", "title", "image"] = "both"  # which encoders exist
    weights: Literal["gate", "mean"] = "gate"  # mean: one half each
    cross_attention: bool = True  # title attends to image and image to title before pooling
    single_stream: bool = False  # one encoder over [title; image] instead of all of the above
    gate_width: int = 160  # hidden units of the gate


@dataclass(frozen=True)
class ModelConfig:
    """The three encoders and what joins them."""

    query: TextConfig = field(default_factory=TextConfig)
    title: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    embedding: int = 160  # width of query and product vectors
    initial_scale: float = 14.0  # logit scale at step 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of matrix products; parameters and statistics stay float32
    remat: bool = False  # recompute each encoder layer in the backward pass: less memory, a third more work


@dataclass(frozen=True)
class ObjectivesConfig:
    """What is minimised."""

    kind: Literal["softmax", "sigmoid"] = "softmax"
    margin: float = 0.0  # AM-Softmax: subtracted from the positive's cosine
    form: Literal["gather"] = "gather"  # how the contrastive loss meets other devices


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay."""

    learning_rate: float = 1e-3  # at the end of the warm-up
    warmup_steps: int = 50
    final_learning_rate: float = 0.0  # at the last step, as a share of learning_rate
    weight_decay: float = 0.05  # on matrices; never on norms, biases, scale
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    clip_norm: float = 1.0  # largest global gradient norm; 0 does not clip
    largest_scale: float = 100.0  # the step clamps the logit scale to this after the update
    ema_decay: float = 0.0  # of the averaged parameters that evaluation uses; 0 keeps none
    rules: tuple[tuple[str, float], ...] = ()  # (regex of parameter path, learning rate factor; 0 freezes); first match


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 700
    batch_size: int = 256  # examples a step over all devices and processes
    seed: int = 0
    log_every: int = 10  # steps
    eval_every: int = 200  # steps; 0 evaluates at the end only
    eval_batch_size: int = 256  # products embedded at once
    save_every: int = 200  # steps; 0 saves at the end only
    fsdp: int = 1  # devices over which the mesh's fsdp axis goes; the rest is data


@dataclass(frozen=True)
class Config:
    """A whole run."""

    run: str = "runs/make"  # folder that receives checkpoints, logs, plots, reports
    data: DataConfig = field(default_factory=DataConfig)
    inputs: InputsConfig = field(default_factory=InputsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
