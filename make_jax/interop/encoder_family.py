"""The interface of an encoder family: what a file of `families/` defines and its table, `FAMILIES`, lists."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import ParamMapping

EncoderKind = Literal["text", "image"]
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
_ACTIVATIONS = {  # hidden_act in config.json -> activation in TextConfig and ImageConfig
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}


@dataclass(frozen=True)
class EncoderFamily:
    """How to import the encoders of one family: its config keys and its tensor names.

    Both towers of a two-tower model are two families. Callables receive the encoder's section of config.json.
    """

    name: str
    kind: EncoderKind
    # model_type in config.json (timm: architecture) -> key of the encoder's section; "" is the complete config
    model_types: dict[str, str]
    prefixes: tuple[str, ...]  # possible prefixes of all tensor names; the one that matches most names is used
    embeddings: tuple[ParamMapping, ...]  # parameters outside the layers
    layer: tuple[ParamMapping, ...]  # parameters of one layer, "{}" for its number
    settings: Callable[[JsonObject], dict[str, Any]]  # fields of TextConfig or ImageConfig
    size: Callable[[JsonObject], int]  # text: vocabulary size; image: pixels per side
    ignored: tuple[str, ...] = ()  # prefixes of tensor names that are known and not imported
    aliases: dict[str, str] = field(default_factory=dict)  # another prefix of tensor names -> the one in the tables
    position_offset: Callable[[JsonObject], int] = field(default=lambda config: 0)  # first used row of the positions
    mean: tuple[float, float, float] = HALF  # pixel normalization, if there is no preprocessor_config.json
    std: tuple[float, float, float] = HALF
    resample: Literal["bicubic", "bilinear"] = "bicubic"  # how positions adapt to another image size
    # The original pooling, unless a file of sentence-transformers states it; "attention" does not exist in our model.
    pooling: Literal["mean", "cls", "attention"] = "cls"

    def table(self, layers: int) -> list[ParamMapping]:
        """Returns the mapping of all parameters, with every layer written out."""
        numbered = [
            row._replace(param=row.param.format(i), tensors=tuple(name.format(i) for name in row.tensors))
            for i in range(layers)
            for row in self.layer
        ]
        return [*self.embeddings, *numbered]


def activation(config: JsonObject, default: str, supported: tuple[str, ...]) -> str:
    """Returns our name of the config's hidden_act. InputError for one that is not in `supported`."""
    name = _ACTIVATIONS.get(config.string("hidden_act", default))
    if name not in supported:
        config.expect("hidden_act", next(key for key, value in _ACTIVATIONS.items() if value in supported))
    assert name is not None
    return name
