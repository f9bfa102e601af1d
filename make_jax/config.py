"""All settings of a run: frozen dataclasses whose types and ranges pydantic validates. Imports no jax.

A recipe in `configs/` is a Python file that defines `config = Config(...)`. It contains no data path. A run stores its
resolved config as JSON (`to_json`); evaluation and conversion read that file (`from_json`) and never execute Python
from a run.

The dataclasses are plain: constructors and `dataclasses.replace` do not validate. `check` and `from_json` validate a
complete config and report all problems together, which validation in each constructor could not.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from make_jax import config_checks, unique_json
from make_jax.config_renames import renamed
from make_jax.errors import InputError

AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]  # 0 to below 1
Ratio = Annotated[float, Field(gt=0, lt=1)]  # between 0 and 1
RGB = Annotated[tuple[float, float, float], Field(description="a list of 3 finite numbers")]
Multipliers = Annotated[
    tuple[tuple[str, float], ...], Field(description="a list, each item a list of 2: a string, a finite number")
]


@dataclass(frozen=True)
class DataConfig:
    """The catalog and the data loader."""

    catalog: str = ""  # folder, .zip, or s3:// or gs:// URL of one; "" uses the packaged catalog
    queries: Literal["clicks", "derived", "both"] = "clicks"  # training pairs; derived: from titles and attributes
    cache: str = ""  # folder or URL of built catalogs; "" uses $XDG_CACHE_HOME/make_jax or ~/.cache/make_jax
    workers: AtLeast0 = 0  # Grain worker processes; 0 reads with threads in the training process
    threads: AtLeast0 = 0  # that make batches where workers is 0; 0: one per available core, at most 8
    prefetch: AtLeast1 = 2  # batches prefetched per process


@dataclass(frozen=True)
class AugmentConfig:
    """Image augmentation, used in training only."""

    min_crop_area: Annotated[float, Field(gt=0, le=1)] = 0.7  # least share of the area in a random crop; 1: no crop
    flip: bool = True  # random horizontal flip, probability 0.5
    brightness: Fraction = 0.1  # max relative change
    contrast: Fraction = 0.1  # max relative change
    saturation: Fraction = 0.1  # max relative change; color words depend on it, so keep it small


@dataclass(frozen=True)
class InputsConfig:
    """Tokenization, image preprocessing and keywords. Stored in the checkpoint and used by evaluation too."""

    tokenizer: str = ""  # Hugging Face tokenizer folder; "": that of init_from, else a WordPiece trained on the catalog
    vocab_size: Annotated[int, Field(ge=6)] = 8192  # max tokens of a trained tokenizer: 5 special ones and word pieces
    new_characters: AtLeast0 = 0  # max tokens added to the WordPiece of init_from for characters that it lacks
    max_query_tokens: Annotated[int, Field(ge=3)] = 16  # tokens per query, 2 special ones included; longer are cut
    max_title_tokens: Annotated[int, Field(ge=3)] = 32  # tokens per title, 2 special ones included; longer are cut
    image_height: AtLeast1 = 64  # pixels
    image_width: AtLeast1 = 64  # pixels
    image_mean: RGB = (0.5, 0.5, 0.5)  # per-channel mean, of values in [0, 1]
    image_std: RGB = (0.5, 0.5, 0.5)  # per-channel standard deviation, of values in [0, 1]
    image_decoding: Literal["full", "scaled"] = "scaled"  # of pictures over twice the size: inputs/images.py
    max_keywords: AtLeast0 = 4096  # max keywords mined from the catalog; 0 mines none
    keyword_attributes: bool = True  # mine the catalog's attributes; False mines titles and clicks only
    mlm_ratio: Ratio = 0.15  # share of a text's tokens masked for MLM
    mpm_ratio: Ratio = 0.4  # share of an image's patches masked for MPM
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TextConfig:
    """A BERT text encoder."""

    layers: AtLeast1 = 3  # transformer layers
    width: AtLeast1 = 160  # hidden size
    heads: AtLeast1 = 4  # attention heads
    mlp_width: AtLeast1 = 640  # hidden size of the MLPs
    dropout: Fraction = 0.1  # probability
    layer_norm_eps: Positive = 1e-12  # epsilon of the layer norms
    activation: Literal["gelu", "gelu_tanh"] = "gelu"  # gelu_tanh is faster on CPU
    init_from: str = ""  # Hugging Face folder or hub id, or what convert.py import wrote; "" initializes randomly


@dataclass(frozen=True)
class ImageConfig:
    """A ViT image encoder."""

    layers: AtLeast1 = 4  # transformer layers
    width: AtLeast1 = 160  # hidden size
    heads: AtLeast1 = 4  # attention heads
    mlp_width: AtLeast1 = 640  # hidden size of the MLPs
    patch_size: AtLeast1 = 8  # pixels per side
    dropout: Fraction = 0.0  # probability
    layer_norm_eps: Positive = 1e-12  # epsilon of the layer norms
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"] = "gelu"  # CLIP: quick_gelu, EVA-02: swiglu
    class_tokens: AtLeast0 = 1  # learned tokens before the patches: 1 in ViT, 2 in DeiT, 0 in SigLIP
    embedding_norm: bool = False  # layer norm before the first layer, as in CLIP
    mlp_sub_norm: bool = False  # layer norm before the last matrix of the MLPs, as in EVA-02
    key_bias: bool = True  # keys have a bias; EVA-02 has none
    rotary_grid: AtLeast0 = 0  # patches per side of the grid that 2-D rotary positions count on (EVA-02: 16); 0: none
    init_from: str = ""  # Hugging Face folder or hub id, or what convert.py import wrote; "" initializes randomly


@dataclass(frozen=True)
class AdaptationConfig:
    """Modal Adaptation: fuses title and image into one product embedding."""

    modalities: Literal["both", "title", "image"] = "both"  # product encoders of the model
    weights: str = "per_keyword"  # of title and image: an entry of MODALITY_WEIGHTS in model/modal_adaptation.py
    cross_attention: bool = False  # title and image attend to each other before pooling; no gain in docs/study.md
    single_stream: bool = False  # one encoder over [title; image] replaces all of the above
    gate_width: AtLeast1 = 160  # hidden size of the gate's MLP


@dataclass(frozen=True)
class MatchingConfig:
    """The cross-modal matching encoder of QIM, QIM2 and re-ranking."""

    layers: AtLeast0 = 0  # transformer layers; 0: no matching encoder
    width: AtLeast1 = 160  # hidden size
    heads: AtLeast1 = 4  # attention heads
    mlp_width: AtLeast1 = 640  # hidden size of the MLPs
    dropout: Fraction = 0.0  # probability


@dataclass(frozen=True)
class ModelConfig:
    """The encoders, Modal Adaptation and Keyword Enhancement."""

    query: TextConfig = field(default_factory=TextConfig)
    title: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    mlm: bool = False  # has the masked-token heads of objectives.mlm
    mpm: Literal["none", "contrastive", "regression"] = "none"  # masked-patch head of objectives.mpm
    enrichment: bool = True  # the query predicts keywords and adds their expected embedding
    keyword_dims: AtLeast0 = 512  # max keyword dimensions appended to the embeddings, most frequent keywords first
    keyword_scale: NonNegative = 4.0  # factor of the keyword dimensions; can be changed after training
    shared_text: bool = False  # query and title share one encoder, with the settings of `query`
    pooling: Literal["mean", "cls"] = "mean"  # of token states and patch states
    l2_normalize: bool = True  # embeddings have unit length; if False, set initial_logit_scale to 1
    embedding_dim: AtLeast1 = 160  # size of query and product embeddings, without keyword dimensions
    initial_logit_scale: float = 14.0  # logit scale (inverse temperature) at step 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of matrix products; parameters and statistics stay float32
    attention: str = "xla"  # a name of model/attention.py ATTENTION_IMPLEMENTATIONS: also "dot_product", "cudnn"
    attention_dropout: bool = True  # dropout of the encoders also drops attention probabilities; needs attention "xla"
    remat: bool = False  # rematerialize encoder layers in the backward pass: less memory, a third more compute


@dataclass(frozen=True)
class ObjectivesConfig:
    """The training loss: each float named after an objective is its weight; 0 disables it."""

    qic: NonNegative = 1.0  # query-item contrastive loss over the global batch
    loss_type: str = "softmax"  # of all contrastive losses: a name of objectives/contrastive.py LOSS_TYPES
    margin: Annotated[float, Field(ge=0, lt=2)] = 0.0  # AM-Softmax: subtracted from the positive's cosine, at most 2
    implementation: Literal["gather", "ring"] = "gather"  # ring: memory linear, not quadratic, in the batch size
    tile: AtLeast1 = 256  # queries per tile of the ring implementation, per device
    keyword_masking: bool = True  # mask false negatives: products that have all keywords of a query
    keyword_swaps: bool = True  # add hard negatives: the query with one keyword replaced
    title_contrast: NonNegative = 0.0  # contrastive loss of query and title embeddings alone
    image_contrast: NonNegative = 0.0  # contrastive loss of query and image embeddings alone
    key: NonNegative = 0.0  # the query predicts the keywords of its product
    qim: NonNegative = 0.0  # query-item matching: binary classification by the matching encoder
    qim2: NonNegative = 0.0  # query-image matching
    matching_group: Annotated[int, Field(ge=2)] = 64  # rows per group from which QIM and QIM2 draw negatives
    mlm: NonNegative = 0.0  # masked language modeling of the title, given the image, and of the query
    mpm: NonNegative = 0.0  # masked patch modeling of the image; model.mpm selects the variant


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: Positive = 1e-3  # peak, at the end of the warm-up
    warmup_steps: AtLeast0 = 50  # steps of linear warm-up; a shorter run warms up in all steps but the last
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0  # learning rate of the last step / learning_rate
    weight_decay: NonNegative = 0.05  # on matrices; never on norms, biases and the logit scale
    beta1: Fraction = 0.9  # decay of the first moment
    beta2: Fraction = 0.98  # decay of the second moment
    eps: Positive = 1e-8  # added to the denominator
    clip_norm: NonNegative = 1.0  # max global gradient norm; 0 disables clipping
    max_logit_scale: Positive = 100.0  # the step clamps the logit scale to this after the update
    ema_decay: Fraction = 0.0  # exponential moving average of the parameters, used by evaluation; 0 disables it
    lr_multipliers: Multipliers = ()  # (regex of parameter path, factor; 0 freezes); the first match applies


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    steps: AtLeast1 = 700  # optimizer steps
    batch_size: AtLeast1 = 256  # global: examples per step over all devices and processes
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 0  # of initialization, data order and dropout; 32 bits
    log_every: AtLeast1 = 10  # steps between log lines
    eval_every: AtLeast0 = 200  # steps between validations; 0 evaluates at the end only
    eval_batch_size: AtLeast1 = 256  # products per batch of validation
    save_every: AtLeast0 = 200  # steps between checkpoints; 0 saves at the end only
    micro_batch_size: AtLeast0 = 0  # rows per device encoded at once (gradient cache); 0: all of them
    max_to_keep: AtLeast1 = 2  # newest checkpoints kept on disk, besides the best one
    init_from: str = ""  # run or checkpoint folder whose weights a new run starts from; "" initializes from the seed
    fsdp: AtLeast1 = 1  # devices that share parameters and optimizer state; as in ZeRO-1, a step gathers all
    profile: str = ""  # FIRST:LAST steps traced into RUN/profile, such as 10:15; "" disables profiling
    writers: tuple[str, ...] = ("jsonl", "tensorboard")  # metric writers; also "wandb" (training/metric_writers)


@dataclass(frozen=True)
class DistributedConfig:
    """`jax.distributed` settings where the environment has none (docs/scaling.md); no effect on the result."""

    coordinator_address: str = ""  # HOST:PORT of process 0; "" detects SLURM, Open MPI, Kubernetes or a TPU pod
    num_processes: AtLeast0 = 0  # 0 detects it; 1 runs alone in any environment
    process_id: Annotated[int, Field(ge=-1)] = -1  # of this process, starting from 0; -1 detects it
    initialization_timeout: AtLeast1 = 300  # seconds in which all processes must connect


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    # Applies to the sections too.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always"
    )

    run: str = "runs/make"  # output folder or s3:// or gs:// URL: checkpoints, logs, plots, reports
    data: DataConfig = field(default_factory=DataConfig)
    inputs: InputsConfig = field(default_factory=InputsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


_ADAPTER = TypeAdapter(Config)


def to_json(config: Config) -> str:
    """Returns all settings as indented JSON, in the order of the fields; `from_json` returns an equal Config."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, where: str) -> Config:
    """Returns the Config that `to_json` wrote.

    A missing setting gets its default, so that runs remain readable after a setting is added; a missing
    `inputs.image_decoding` becomes "full", as in the runs before it existed.

    Args:
        text: JSON.
        where: the file name in error messages.

    Raises:
        InputError: invalid JSON or duplicate keys; or unknown keys (each with the nearest name), renamed keys (each
            with the new name), and values of a wrong type or out of range, all together.
    """
    try:
        values = unique_json.loads(text)  # for duplicate keys, and the line number of a syntax error
        config = _ADAPTER.validate_json(text)
        if "image_decoding" not in values.get("inputs", {}):
            config = dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, image_decoding="full"))
        messages = _renamed_values(config)
        if not messages:
            return config
    except json.JSONDecodeError as error:
        raise InputError(f"{where}, line {error.lineno}: not JSON ({error.msg})") from None
    except unique_json.DuplicateKeyError as error:
        raise InputError(f"{where}: {error}") from None
    except ValidationError as errors:
        messages = [_message(error) for error in errors.errors(include_url=False)]
    raise InputError(f"{where}: {'; '.join(messages)}")


def check(config: Config) -> None:
    """Raises InputError that lists every setting of a wrong type, out of range, or in conflict with another one."""
    problems = []
    try:
        _ADAPTER.validate_python(config)
    except ValidationError as errors:
        details = errors.errors(include_url=False)
        problems = [_message(error) for error in details]
        if not {error["type"] for error in details} <= _RANGE_ERRORS.keys():
            # A recipe is plain Python and may contain any type, which the checks below do not expect.
            raise InputError("; ".join(f"config: {problem}" for problem in problems)) from None
    problems += [f"config: {problem}" for problem in _renamed_values(config)]
    problems += config_checks.problems(config)
    if problems:
        raise InputError("; ".join(problems))


def _renamed_values(config: Config) -> list[str]:
    """Returns a message for each setting with an old name of an entry of a table, whose names no type lists."""
    section = config.model.adaptation
    message = renamed("model.adaptation.weights", section.weights)
    return [message] if message else []


_RANGE_ERRORS = {
    "greater_than_equal": (Ge, "at least"),
    "greater_than": (Gt, "more than"),
    "less_than_equal": (Le, "at most"),
    "less_than": (Lt, "less than"),
}
_TYPE_ERRORS = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "dataclass_type": "an object of settings",
}


def _message(error: ErrorDetails) -> str:
    """Returns a pydantic error as one sentence: the setting, its value, what was expected."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    kind, value = error["type"], error["input"]
    if kind == "unexpected_keyword_argument":
        section = path.rpartition(".")[0]
        siblings = [each for each in _FIELDS if each.rpartition(".")[0] == section]
        nearest = difflib.get_close_matches(path, siblings, n=1, cutoff=0.0)[0]
        return renamed(path) or f"unknown key {path}; did you mean {nearest}?"
    setting = path.partition("[")[0]
    if kind == "missing":  # too few items: pydantic reports the item, the path of the list helps more
        path = setting
    if kind == "literal_error":
        choices = ", ".join(map(repr, typing.get_args(_FIELDS[setting])))
        return renamed(path, value) or f"{path} is {value!r}, expected one of {choices}"
    if kind in _RANGE_ERRORS:
        return f"{path} is {value}, expected {_range(setting)}"
    expected = _TYPE_ERRORS.get(kind) or _field_info(setting).description or error["msg"]
    return f"{path or 'config'} is {value!r}, expected {expected}"


def _range(setting: str) -> str:
    """Returns the range of a setting in words, such as "at least 0 and less than 1"."""
    bounds = [
        f"{words} {getattr(bound, kind.__name__.lower())}"
        for kind, words in _RANGE_ERRORS.values()
        for bound in _field_info(setting).metadata
        if isinstance(bound, kind)
    ]
    return " and ".join(bounds)


def _field_info(setting: str) -> Any:
    """Returns the pydantic Field in the annotation of a setting."""
    metadata = getattr(_FIELDS.get(setting), "__metadata__", ())
    return metadata[0] if metadata else Field()


def _fields(section: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the annotation of every setting and section."""
    for name in (each.name for each in dataclasses.fields(section)):
        annotation = typing.get_type_hints(section, include_extras=True)[name]
        yield prefix + name, annotation
        if dataclasses.is_dataclass(annotation):
            yield from _fields(typing.cast(type, annotation), f"{prefix}{name}.")


_FIELDS = dict(_fields(Config))
