"""What a transformer layer needs to know, in one object. Imports no jax, because the PyTorch twin reads it too.

An option that all encoders share is a field of `ModelConfig` and `ComputeConfig`; an option of one encoder is a field
of its section of the config and of `LayerConfig`. Nothing between the config and the layer names it.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from make_jax.config import ImageConfig, MatchingConfig, ModelConfig, TextConfig

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]


@dataclass(frozen=True)
class ComputeConfig:
    """How all layers of a model compute; fields of `ModelConfig` with their defaults."""

    dtype: str = "float32"  # of matrix products
    remat: bool = False  # rematerialize encoder layers in the backward pass
    attention: str = "xla"  # a name of model/attention.py ATTENTION_IMPLEMENTATIONS
    attention_dropout: bool = True  # dropout applies to attention probabilities too


@dataclass(frozen=True)
class LayerConfig:
    """One kind of layer: fields of an encoder's section of the config, and how the model computes."""

    heads: int
    mlp_width: int
    dropout: float
    layer_norm_eps: float
    activation: Activation
    compute: ComputeConfig
    mlp_sub_norm: bool = False  # layer norm before the last matrix of the MLP
    key_bias: bool = True

    @property
    def attention_dropout(self) -> float:
        """Probability of dropping an attention probability."""
        return self.dropout if self.compute.attention_dropout else 0.0


def compute_config(model: ModelConfig) -> ComputeConfig:
    """Returns how all layers of a model compute."""
    return ComputeConfig(**_shared_fields(ComputeConfig, model))


def layer_config(
    section: TextConfig | ImageConfig | MatchingConfig, compute: ComputeConfig, **changes: Any
) -> LayerConfig:
    """Returns the layers of one section of the config; `changes` are fields that it lacks, or that differ."""
    return LayerConfig(**{**_shared_fields(LayerConfig, section), "compute": compute, **changes})


def is_plain_vit(image: ImageConfig) -> bool:
    """Returns whether the layers are those of ViT, which transformers has as `ViTModel`."""
    return image.activation != "swiglu" and not image.mlp_sub_norm and image.key_bias and not image.rotary_grid


def _shared_fields(kind: type, section: Any) -> dict[str, Any]:
    """The fields of `section` that `kind` has too."""
    return {field.name: getattr(section, field.name) for field in fields(kind) if hasattr(section, field.name)}
