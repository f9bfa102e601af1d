"""Every setting of a run, as frozen dataclasses: one comment a field, with its unit. Imports no jax.

A recipe in `configs/` is a Python file that defines `config = Config(...)`. It names no data path. A run stores its
resolved config as JSON (`to_json`), and evaluation and conversion read that (`from_json`): they never execute Python
from a run.
"""

import dataclasses
import difflib
import json
import math
import operator
import re
import typing
from collections.abc import Iterator
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

    min_crop_area: float = 0.7  # least share of the picture that a random crop keeps; 1 does not crop
    flip: bool = True  # mirror left to right, half of the time
    brightness: float = 0.1  # largest relative change
    contrast: float = 0.1  # largest relative change
    saturation: float = 0.1  # largest relative change; colour words depend on it, so keep it small


@dataclass(frozen=True)
class InputsConfig:
    """What the model sees. Travels with the checkpoint: evaluation uses the same."""

    tokenizer: str = ""  # local Hugging Face tokenizer folder; "": that of init_from, else a WordPiece of the catalog
    vocab_size: int = 8192  # most word pieces of a trained tokenizer
    new_characters: int = 0  # most pieces added to the WordPiece of init_from for characters that it lacks
    max_query_tokens: int = 16  # longest query, in tokens, special tokens included
    max_title_tokens: int = 32  # longest title, in tokens, special tokens included
    image_height: int = 64  # pixels
    image_width: int = 64  # pixels
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # subtracted, per channel, of values in [0, 1]
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)  # divided by, per channel
    max_keywords: int = 4096  # most keywords that are mined from the catalog; 0 mines none
    keyword_attributes: bool = True  # mine the attributes that the catalog names; False: titles and clicks alone
    mlm_ratio: float = 0.15  # share of a text's tokens that MLM hides
    mpm_ratio: float = 0.4  # share of a picture's patches that MPM hides
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TextConfig:
    """A BERT-shaped encoder."""

    layers: int = 3
    width: int = 160
    heads: int = 4
    mlp_width: int = 640
    dropout: float = 0.1  # share of activations dropped in training
    layer_norm_eps: float = 1e-12  # layer norm
    activation: Literal["gelu", "gelu_tanh"] = "gelu"  # gelu_tanh is faster on CPU
    init_from: str = ""  # what convert.py import reads, or what it wrote; "" starts at random


@dataclass(frozen=True)
class ImageConfig:
    """A ViT-shaped encoder."""

    layers: int = 4
    width: int = 160
    heads: int = 4
    mlp_width: int = 640
    patch_size: int = 8  # pixels a side
    dropout: float = 0.0  # share of activations dropped in training
    layer_norm_eps: float = 1e-12  # layer norm
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"  # gelu_tanh is faster on CPU; quick_gelu: CLIP's
    class_tokens: int = 1  # learnt tokens in front of the patches: 1 in ViT, 2 in DeiT, 0 in SigLIP
    embedding_norm: bool = False  # a layer norm before the first layer, as in CLIP
    init_from: str = ""  # what convert.py import reads, or what it wrote; "" starts at random


@dataclass(frozen=True)
class AdaptationConfig:
    """Modal Adaptation: how title and image become one product vector."""

    modalities: Literal["both", "title", "image"] = "both"  # which encoders exist
    weights: Literal["per_keyword", "gate", "mean"] = "per_keyword"  # of title and image: model/modal_adaptation.py
    cross_attention: bool = True  # title attends to image and image to title before pooling
    single_stream: bool = False  # one encoder over [title; image] instead of all of the above
    gate_width: int = 160  # hidden units of the gate


@dataclass(frozen=True)
class MatchingConfig:
    """The cross-modal encoder that says whether a query and a product match: for QIM, QIM2 and re-ranking."""

    layers: int = 0  # 0: the model has none
    width: int = 160
    heads: int = 4
    mlp_width: int = 640
    dropout: float = 0.0  # share of activations dropped in training


@dataclass(frozen=True)
class ModelConfig:
    """The encoders and what joins them."""

    query: TextConfig = field(default_factory=TextConfig)
    title: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    mlm: bool = False  # the heads that predict hidden tokens exist, for objectives.mlm
    mpm: Literal["none", "contrastive", "regression"] = "none"  # the head that predicts hidden patches
    enrichment: bool = True  # the query predicts keywords, and their expected embedding joins it
    keyword_dims: int = 512  # most dimensions that are added to vectors for keywords, one each, the most frequent first
    keyword_scale: float = 4.0  # what they count beside the rest; a run that is over may be given another
    shared_text: bool = False  # query and title share one encoder, with the settings of `query`
    pooling: Literal["mean", "cls"] = "mean"  # of token states and of patch states
    l2_normalize: bool = True  # query and product vectors have unit length; without it begin with initial_logit_scale 1
    embedding_dim: int = 160  # width of query and product vectors, without evidence
    initial_logit_scale: float = 14.0  # logit scale at step 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of matrix products; parameters and statistics stay float32
    remat: bool = False  # recompute each encoder layer in the backward pass: less memory, a third more work


@dataclass(frozen=True)
class ObjectivesConfig:
    """What is minimised: each float named after an objective is its weight, and 0 leaves it out."""

    qic: float = 1.0  # query-item contrast over the global batch
    loss_type: Literal["softmax", "sigmoid"] = "softmax"  # of every contrast of queries and products
    margin: float = 0.0  # AM-Softmax: subtracted from the positive's cosine
    implementation: Literal["gather", "ring"] = (
        "gather"  # of the contrasts; ring: memory grows with the batch, not its square
    )
    tile: int = 256  # queries of a device that the ring form treats at once
    keyword_masking: bool = True  # a product that has all keywords of a query is none of its negatives
    keyword_swaps: bool = True  # a query with one keyword replaced is a negative of its product
    title_contrast: float = 0.0  # the same loss on query and title direction alone
    image_contrast: float = 0.0  # the same loss on query and image direction alone
    key: float = 0.0  # the query predicts the keywords of its product
    qim: float = 0.0  # query-item matching: does this product answer this query?
    qim2: float = 0.0  # query-image matching
    matching_group: int = 64  # rows among which QIM and QIM2 draw their negatives
    mlm: float = 0.0  # hidden tokens of the title, given the image, and of the query
    mpm: float = 0.0  # hidden patches of the picture; model.mpm says how they are predicted


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay."""

    learning_rate: float = 1e-3  # at the end of the warm-up
    warmup_steps: int = 50
    final_lr_ratio: float = 0.0  # at the last step, as a share of learning_rate
    weight_decay: float = 0.05  # on matrices; never on norms, biases, scale
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    clip_norm: float = 1.0  # largest global gradient norm; 0 does not clip
    max_logit_scale: float = 100.0  # the step clamps the logit scale to this after the update
    ema_decay: float = 0.0  # of the averaged parameters that evaluation uses; 0 keeps none
    lr_multipliers: tuple[
        tuple[str, float], ...
    ] = ()  # (regex of parameter path, learning rate factor; 0 freezes); first match


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
    micro_batch_size: int = 0  # rows that a device encodes at once, the rest of its batch waiting; 0: all of them
    max_to_keep: int = 2  # newest checkpoints kept on the disk, beside the best one
    init_from: str = ""  # run or checkpoint folder whose weights a new run begins with; "" draws them from the seed
    fsdp: int = 1  # devices over which the large matrices are split: the mesh's fsdp axis; the rest is data
    profile: str = ""  # FIRST:LAST step to trace into RUN/profile, such as 10:15; "" traces none


@dataclass(frozen=True)
class DistributedConfig:
    """The processes of a run, where the environment does not tell (docs/scaling.md); nothing that it learns from."""

    coordinator_address: str = (
        ""  # HOST:PORT of process 0, PORT free there; "" asks SLURM, Open MPI, Kubernetes, a TPU pod
    )
    num_processes: int = 0  # processes; 0 asks the environment, 1 is alone whatever the environment says
    process_id: int = -1  # of this process, from 0; -1 asks the environment
    initialization_timeout: int = 300  # seconds in which all have to come


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
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


# Names of settings that older runs and recipes have. None is accepted: an error names the new one, or why it is gone.
RENAMED = {
    "inputs.vocabulary": "inputs.vocab_size",
    "inputs.query_tokens": "inputs.max_query_tokens",
    "inputs.title_tokens": "inputs.max_title_tokens",
    "inputs.keywords": "inputs.max_keywords",
    "inputs.masked_tokens": "inputs.mlm_ratio",
    "inputs.masked_patches": "inputs.mpm_ratio",
    "inputs.augment.crop_area": "inputs.augment.min_crop_area",
    "model.query.eps": "model.query.layer_norm_eps",
    "model.title.eps": "model.title.layer_norm_eps",
    "model.image.eps": "model.image.layer_norm_eps",
    "model.image.patch": "model.image.patch_size",
    "model.evidence": "model.keyword_dims",
    "model.evidence_scale": "model.keyword_scale",
    "model.normalise": "model.l2_normalize",
    "model.embedding": "model.embedding_dim",
    "model.initial_scale": "model.initial_logit_scale",
    "model.adaptation.weights=confidence": "per_keyword",
    "objectives.kind": "objectives.loss_type",
    "objectives.form": "objectives.implementation",
    "optim.final_learning_rate": "optim.final_lr_ratio",
    "optim.largest_scale": "optim.max_logit_scale",
    "optim.rules": "optim.lr_multipliers",
    "train.keep": "train.max_to_keep",
    "train.micro_batch": "train.micro_batch_size",
    "processes": "distributed",
    "processes.coordinator": "distributed.coordinator_address",
    "processes.count": "distributed.num_processes",
    "processes.index": "distributed.process_id",
    "processes.start_timeout": "distributed.initialization_timeout",
}
REMOVED = {"objectives.bank": "it lowered validation nDCG@10 by 0.11"}


def renamed(path: str, value: object = None) -> str | None:
    """Returns what became of an old setting, or of an old `value` of a setting, as a sentence; None for a current one.

    `path` is dotted, such as "objectives.form".
    """
    if path in RENAMED:
        return f"{path} was renamed to {RENAMED[path]}"
    if path in REMOVED:
        return f"{path} was removed: {REMOVED[path]}"
    if f"{path}={value}" in RENAMED:
        return f"{path} {value!r} was renamed to {RENAMED[f'{path}={value}']!r}"
    return None


def to_json(config: Config) -> str:
    """Returns every setting as indented JSON, in the order of the fields; `from_json` gives back an equal Config."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, where: str) -> Config:
    """Returns the Config that `to_json` wrote; `where` names the file in messages.

    A setting that the text lacks keeps its default, so that a run can be read after a setting was added. Raises
    InputError for broken JSON, an unknown key (with the nearest name) and a value of the wrong type (with its path).
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}, line {error.lineno}: not JSON ({error.msg})") from None
    config: Config = _read(Config, value, "", where)
    return config


def check(config: Config) -> None:
    """Raises InputError that names every setting with a wrong type, out of range, or contradicting another one."""
    _read(Config, dataclasses.asdict(config), "", "config")  # a recipe is plain Python: its types are checked here
    problems = [*_data_problems(config), *_model_problems(config)]
    problems += [*_objectives_problems(config), *_training_problems(config), *_profile_problems(config.train)]
    problems += _processes_problems(config.distributed)
    if problems:
        raise InputError("; ".join(problems))


def _read(kind: Any, value: Any, path: str, where: str) -> Any:
    """Returns `value`, parsed from JSON, as a `kind`: a dataclass, tuple, Literal or plain type."""
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, path, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal and any(value == choice and type(value) is type(choice) for choice in arguments):
        return value
    if origin is Literal and (gone := renamed(path, value)):
        raise InputError(f"{where}: {gone}")
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(value) == len(arguments):
            pairs = enumerate(zip(arguments, value, strict=True))
            return tuple(_read(part, item, f"{path}[{i}]", where) for i, (part, item) in pairs)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise InputError(f"{where}: {path} is {value!r}, expected {_describe(kind)}")


def _read_dataclass(kind: Any, value: Any, path: str, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {path or 'the whole'} is {value!r}, expected an object of settings")
    types = typing.get_type_hints(kind)
    for key in value:
        if key not in types:
            if gone := renamed(_join(path, key)):
                raise InputError(f"{where}: {gone}")
            nearest = difflib.get_close_matches(key, types, n=1, cutoff=0.0)[0]
            raise InputError(f"{where}: unknown key {_join(path, key)}; did you mean {_join(path, nearest)}?")
    return kind(**{key: _read(types[key], item, _join(path, key), where) for key, item in value.items()})


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _describe(kind: Any) -> str:
    """What a setting expects, in words."""
    plain = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
    if kind in plain:
        return plain[kind]
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if arguments[-1] is Ellipsis:
        return f"a list, each item {_describe(arguments[0])}"
    return f"a list of {len(arguments)}: " + ", ".join(map(_describe, arguments))


def _outside(config: Config, bounds: str, *paths: str) -> Iterator[str]:
    """Yields a problem for each setting outside `bounds`, written like "[0, 1)"; an empty side is open."""
    low, high = bounds[1:-1].split(", ")
    for path in paths:
        value = operator.attrgetter(path)(config)
        above = not low or (value >= float(low) if bounds[0] == "[" else value > float(low))
        below = not high or (value <= float(high) if bounds[-1] == "]" else value < float(high))
        if not (above and below):
            limits = [f"{'at least' if bounds[0] == '[' else 'more than'} {low}"] if low else []
            limits += [f"{'at most' if bounds[-1] == ']' else 'less than'} {high}"] if high else []
            yield f"{path} is {value}, expected {' and '.join(limits)}"


def _data_problems(config: Config) -> Iterator[str]:
    jitter = ("brightness", "contrast", "saturation")
    inputs, adaptation, patch = config.inputs, config.model.adaptation, config.model.image.patch_size
    if not config.run:
        yield "run is empty, expected a folder"
    yield from _outside(config, "[0, )", "data.workers")
    yield from _outside(config, "[1, )", "data.prefetch", "inputs.image_height", "inputs.image_width")
    yield from _outside(config, "[6, )", "inputs.vocab_size")  # five special tokens and one piece
    yield from _outside(config, "[3, )", "inputs.max_query_tokens", "inputs.max_title_tokens")  # start, one piece, end
    yield from _outside(config, "[0, )", "inputs.max_keywords")
    yield from _outside(config, "(0, 1)", "inputs.mlm_ratio", "inputs.mpm_ratio")
    yield from _outside(config, "(0, 1]", "inputs.augment.min_crop_area")
    yield from _outside(config, "[0, 1)", *(f"inputs.augment.{name}" for name in jitter))
    if min(inputs.image_std) <= 0:
        yield f"inputs.image_std is {inputs.image_std}, expected each more than 0"
    for name in ("image_height", "image_width"):
        size = getattr(inputs, name)
        if adaptation.modalities != "title" and patch >= 1 and size % patch:
            yield f"inputs.{name} is {size}, expected a multiple of model.image.patch_size {patch}"


def _model_problems(config: Config) -> Iterator[str]:
    for name in ("query", "title", "image", *(["matching"] if config.model.matching.layers else [])):
        path = f"model.{name}"
        encoder = getattr(config.model, name)
        yield from _outside(config, "[1, )", *(f"{path}.{size}" for size in ("layers", "width", "heads", "mlp_width")))
        yield from _outside(config, "[0, 1)", f"{path}.dropout")
        if name != "matching":
            yield from _outside(config, "(0, )", f"{path}.layer_norm_eps")
        if encoder.heads >= 1 and encoder.width % encoder.heads:
            yield f"{path}.width is {encoder.width}, expected a multiple of {path}.heads {encoder.heads}"
    yield from _outside(config, "[0, )", "model.keyword_dims", "model.keyword_scale")
    yield from _outside(config, "[1, )", "model.image.patch_size", "model.embedding_dim", "model.adaptation.gate_width")
    yield from _outside(config, f"(0, {config.optim.max_logit_scale}]", "model.initial_logit_scale")
    yield from _outside(config, "[0, )", "model.matching.layers", "model.image.class_tokens")
    adaptation = config.model.adaptation
    yield from _unused_weights(config)
    if config.model.pooling == "cls" and not config.model.image.class_tokens and adaptation.modalities != "title":
        yield "model.pooling is 'cls', expected 'mean' with model.image.class_tokens 0"
    if config.model.shared_text and config.model.query != config.model.title:
        yield "model.title differs from model.query, expected the same settings with model.shared_text"
    if adaptation.single_stream and adaptation.modalities != "both":
        expected = "expected 'both' with model.adaptation.single_stream"
        yield f"model.adaptation.modalities is {adaptation.modalities!r}, {expected}"
    two = adaptation.modalities == "both" and not adaptation.single_stream
    if two and adaptation.weights == "per_keyword" and not (config.model.keyword_dims and config.inputs.max_keywords):
        expected = "expected 'gate' or 'mean' without model.keyword_dims and inputs.max_keywords"
        yield f"model.adaptation.weights is 'per_keyword', {expected}"


def _unused_weights(config: Config) -> Iterator[str]:
    """Weights that are named for an encoder which the model does not have."""
    adaptation = config.model.adaptation
    needs = {"title": "image", "image": "title"}  # is absent with these modalities
    for name, other in needs.items():
        init_from = getattr(config.model, name).init_from
        if init_from and (adaptation.single_stream or adaptation.modalities == other):
            what = "model.adaptation.single_stream" if adaptation.single_stream else f"the {other} alone"
            yield f"model.{name}.init_from is {init_from!r}, expected '' with {what}"


def _objectives_problems(config: Config) -> Iterator[str]:
    objectives, adaptation = config.objectives, config.model.adaptation
    named = ("qic", "title_contrast", "image_contrast", "key", "qim", "qim2", "mlm", "mpm")
    yield from _outside(config, "[0, )", *(f"objectives.{name}" for name in named))
    yield from _outside(config, "[0, 2)", "objectives.margin")  # cosines are at most 2 apart
    yield from _outside(config, "[1, )", "objectives.tile")
    yield from _outside(config, "[2, )", "objectives.matching_group")
    if not any(getattr(objectives, name) for name in named):
        yield f"objectives: every weight is 0, expected one of {', '.join(named)} to be more"
    needs = {
        "key": ("model.enrichment", config.model.enrichment and config.inputs.max_keywords > 0),
        "qim": ("model.matching.layers", config.model.matching.layers > 0),
        "qim2": (
            "model.matching.layers and an image encoder",
            config.model.matching.layers > 0 and adaptation.modalities != "title",
        ),
        "mlm": ("model.mlm", config.model.mlm),
        "mpm": (
            "model.mpm and an image encoder",
            config.model.mpm != "none" and adaptation.modalities != "title" and not adaptation.single_stream,
        ),
    }
    for name, (what, there) in needs.items():
        if getattr(objectives, name) and not there:
            yield f"objectives.{name} is {getattr(objectives, name)}, expected 0 without {what}"
    group = objectives.matching_group
    for name in ("batch_size", "micro_batch_size"):
        size = getattr(config.train, name)
        if (objectives.qim or objectives.qim2) and group >= 2 and size % group:
            near = f"{size // group * group} or {-(-size // group) * group}" if size > group else f"{group}"
            yield f"train.{name} is {size}, expected a multiple of objectives.matching_group {group}, like {near}"


def profiled_steps(text: str) -> tuple[int, int] | None:
    """The first and the last step that `train.profile` names; None for none. ValueError for anything else."""
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(text)
    return int(found[1]), int(found[2])


def _profile_problems(train: TrainConfig) -> Iterator[str]:
    try:
        steps = profiled_steps(train.profile)
    except ValueError:
        yield f"train.profile is {train.profile!r}, expected FIRST:LAST step, such as 10:15, the first step being 1"
        return
    if steps is not None and steps[1] > train.steps:
        yield f"train.profile is {train.profile!r}, expected steps up to train.steps {train.steps}"


def _processes_problems(processes: DistributedConfig) -> Iterator[str]:
    address, count, index = processes.coordinator_address, processes.num_processes, processes.process_id
    if processes.initialization_timeout < 1:
        yield f"distributed.initialization_timeout is {processes.initialization_timeout}, expected at least 1"
    if not address:
        needs = "expected HOST:PORT in distributed.coordinator_address with it"
        if count not in (0, 1):
            yield f"distributed.num_processes is {count}, {needs} (or 0 or 1)"
        if index != -1:
            yield f"distributed.process_id is {index}, {needs} (or -1)"
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        yield f"distributed.coordinator_address is {address!r}, expected HOST:PORT"
    if count < 1:
        yield f"distributed.num_processes is {count}, expected at least 1 with distributed.coordinator_address"
    elif not 0 <= index < count:
        yield f"distributed.process_id is {index}, expected 0 to {count - 1}, for distributed.num_processes is {count}"


def _training_problems(config: Config) -> Iterator[str]:
    optim = config.optim
    counts = ("steps", "batch_size", "log_every", "eval_batch_size", "fsdp", "max_to_keep")
    yield from _outside(config, "(0, )", "optim.learning_rate", "optim.eps", "optim.max_logit_scale")
    yield from _outside(config, "[0, )", "optim.warmup_steps", "optim.weight_decay", "optim.clip_norm")
    yield from _outside(config, "[0, 1]", "optim.final_lr_ratio")
    yield from _outside(config, "[0, 1)", "optim.beta1", "optim.beta2", "optim.ema_decay")
    yield from _outside(config, "[1, )", *(f"train.{name}" for name in counts))
    yield from _outside(config, "[0, )", "train.eval_every", "train.save_every", "train.micro_batch_size")
    yield from _outside(config, "[0, 4294967295]", "train.seed")  # NumPy and Grain take 32 bits
    if optim.warmup_steps >= config.train.steps >= 1:
        yield f"optim.warmup_steps is {optim.warmup_steps}, expected less than train.steps {config.train.steps}"
    for i, (pattern, factor) in enumerate(optim.lr_multipliers):
        if factor < 0:
            yield f"optim.lr_multipliers[{i}] has the factor {factor}, expected at least 0"
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"optim.lr_multipliers[{i}] is not a regular expression: {pattern!r} ({error})"
