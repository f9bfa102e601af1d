"""What a run is initialized from: the first of these that exists.

1. own run       the newest intact checkpoint of the run folder: state, data position, tokenizer, keywords (a resume)
2. init-from     `train.init_from`: weights, tokenizer and keywords of another run, at any image size; step 0
3. pretrained    `model.*.init_from`: pretrained encoders and their tokenizer, the rest from the seed; step 0
4. scratch       everything from `train.seed`; step 0
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer, load_tokenizer, split_long_words
from make_jax.interop.encoder_files import PretrainedEncoder
from make_jax.interop.init_encoders import init_from_encoders, read_init_encoders
from make_jax.interop.position_resampling import resample_positions
from make_jax.runs import checkpoints as run_checkpoints
from make_jax.runs.checkpoints import CheckpointInfo, Checkpoints
from make_jax.runs.run_folder import CHECKPOINTS, open_checkpoints, read_config, read_keywords, read_tokenizer
from make_jax.runs.run_store import pull_run
from make_jax.runs.state import Params, TrainState
from make_jax.training.resume_check import check_resumable, config_differences
from make_jax.training.vocabularies import make_keywords, make_tokenizer

KEYWORD_HEADS = "keyword_evidence"  # fitted by each evaluation, so training starts and goes on without them


@dataclass(frozen=True)
class Initialization:
    """What a run is initialized from; at most one of `own`, `source` and `encoders` is set."""

    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    own: CheckpointInfo | None = None  # the run's own checkpoint, to resume
    source: CheckpointInfo | None = None  # the checkpoint of `train.init_from`
    encoders: Mapping[str, PretrainedEncoder] = field(default_factory=dict)  # by the setting that names them

    @property
    def step(self) -> int:
        """Number of completed training steps."""
        return 0 if self.own is None else self.own.step

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the run's own checkpoint; empty in a new run."""
        return {} if self.own is None else self.own.meta

    @property
    def provenance(self) -> Mapping[str, Any] | None:
        """Which weights the run was first initialized from, for checkpoint metadata; None if from the seed."""
        if self.source is None:
            return self.metadata.get("init_from")
        source = {name: self.source.meta.get(name) for name in ("catalog_digest", "commit", "init_from")}
        return {"checkpoint": str(self.source.path), "digest": run_checkpoints.digest(self.source), **source}

    def needs_reevaluation(self, config: Config) -> bool:
        """Whether the run was evaluated with another keyword_scale, which training does not depend on."""
        return self.own is not None and read_config(self.own).model.keyword_scale != config.model.keyword_scale

    def initialize(
        self, scratch: TrainState, checkpoints: Checkpoints, config: Config, message: Callable[[str], None]
    ) -> TrainState:
        """Returns the state to start from, with the shardings of `scratch`, the state made from the seed.

        `message` receives a line about each pretrained encoder. Raises InputError that lists the leaves which the
        checkpoint lacks, has in addition, or has in another shape.
        """
        if self.own is not None:
            state = checkpoints.restore(scratch, self.own)[0]
            return state if self.step >= config.train.steps else _with_keyword_heads_of(scratch, state)
        if self.source is not None:
            params = _restore_other_resolution(scratch.params, checkpoints, self.source, config)
            ema = None if scratch.ema is None else jax.tree.map(jnp.copy, params)
            return replace(scratch, params=params, ema=ema)
        if self.encoders:
            return with_pretrained_encoders(scratch, self.encoders, config, self.tokenizer, message)
        return scratch

    def describe(self, config: Config) -> list[str]:
        """Lines for the user about a run initialized from another: its path, and settings that differ."""
        if self.source is None:
            return []
        saved = read_config(self.source)
        sections = [("model", config.model, saved.model), ("inputs", config.inputs, saved.inputs)]
        different = [
            f"{name} is {ours!r} here, {theirs!r} in the checkpoint"
            for section, a, b in sections
            for name, ours, theirs in config_differences(a, b, f"{section}.")
        ]
        line = f"initialized from the weights, tokenizer and keywords of {self.source.path}"
        return [line + (f"; warning: {'; '.join(different)}" if different else "")]


def _with_keyword_heads_of(scratch: TrainState, state: TrainState) -> TrainState:
    """Returns `state` with untrained keyword heads: those of a best checkpoint belong to its step only."""
    if KEYWORD_HEADS not in state.params:
        return state
    params = {**state.params, KEYWORD_HEADS: scratch.params[KEYWORD_HEADS]}
    ema = None
    if state.ema is not None and scratch.ema is not None:
        ema = {**state.ema, KEYWORD_HEADS: scratch.ema[KEYWORD_HEADS]}
    return replace(state, params=params, ema=ema)


def _restore_other_resolution(
    template: Params, checkpoints: Checkpoints, source: CheckpointInfo, config: Config
) -> Params:
    """Returns the parameters of `source`; patch positions of another image size are resampled (bicubic)."""
    saved = read_config(source)
    grid, source_grid = patch_grid(config), patch_grid(saved)
    if grid == source_grid or "position" not in template.get("image_encoder", {}):
        return checkpoints.restore_params(template, source, exclude=KEYWORD_HEADS)
    ours = template["image_encoder"]["position"]
    num_class = saved.model.image.class_tokens
    length = num_class + source_grid[0] * source_grid[1]
    replicated = NamedSharding(ours.sharding.mesh, PartitionSpec())
    stored = jax.ShapeDtypeStruct((length, ours.shape[1]), ours.dtype, sharding=replicated)
    adjusted = {**template, "image_encoder": {**template["image_encoder"], "position": stored}}
    params = checkpoints.restore_params(adjusted, source, exclude=KEYWORD_HEADS)
    table = np.asarray(params["image_encoder"]["position"])
    patches = resample_positions(table[num_class:], grid, "bicubic", source_grid=source_grid)
    position = jax.device_put(np.concatenate([table[:num_class], patches]), ours.sharding)
    return {**params, "image_encoder": {**params["image_encoder"], "position": position}}


def patch_grid(config: Config) -> tuple[int, int]:
    """Returns the rows and columns of image patches."""
    patch = config.model.image.patch_size
    return config.inputs.image_height // patch, config.inputs.image_width // patch


def find_initialization(config: Config, catalog: Catalog, checkpoints: Checkpoints) -> Initialization:
    """Returns what the run is initialized from, in the order above; reads no arrays.

    Raises InputError if the run folder has checkpoints of other settings or no intact one, and if `train.init_from` is
    not a run or contradicts `inputs.tokenizer`.
    """
    # 1. own run
    if checkpoints.exists():
        own = checkpoints.latest_intact("last")
        check_resumable(config, catalog.digest, own)
        return Initialization(read_tokenizer(own), read_keywords(own), own=own)
    # 2. init-from
    if config.train.init_from:
        source = find_init_from(config.train.init_from)
        tokenizer = split_long_words(read_tokenizer(source))  # that of an older version did not
        setting = config.inputs.tokenizer
        if setting and split_long_words(load_tokenizer(setting)).definition != tokenizer.definition:
            raise InputError(
                f"inputs.tokenizer is {setting!r}, expected the one of train.init_from {source.path}, whose weights "
                "belong to its tokens; leave inputs.tokenizer empty"
            )
        keywords = read_keywords(source)
        return Initialization(tokenizer, keywords if len(keywords) else make_keywords(config, catalog), source=source)
    # 3. pretrained encoders, and 4. scratch, where there are none
    encoders = read_init_encoders(config)
    tokenizer = make_tokenizer(config, catalog, encoders)
    return Initialization(tokenizer, make_keywords(config, catalog), encoders=encoders)


def find_init_from(path: str) -> CheckpointInfo:
    """Returns the checkpoint that `train.init_from` names: a run folder's best one, or the checkpoint folder itself.

    The path may be a URL, of which the files are downloaded to its mirror.
    """
    folder = pull_run(path)
    if (folder / CHECKPOINTS).is_dir():
        return open_checkpoints(folder).latest_intact("best")
    if (folder / run_checkpoints.STATE).is_dir():
        return run_checkpoints.read(folder)
    expected = "expected a run folder or one of its checkpoints, such as RUN/checkpoints/best/000200"
    raise InputError(f"train.init_from is {path!r}, {expected}")


def with_pretrained_encoders(
    state: TrainState,
    encoders: Mapping[str, PretrainedEncoder],
    config: Config,
    tokenizer: Tokenizer,
    message: Callable[[str], None],
) -> TrainState:
    """Returns `state` with pretrained encoders in its parameters and their average, with the same shardings.

    Errors are those of `interop.init_encoders.init_from_encoders`.
    """

    def initialize(params: Params, message: Callable[[str], None]) -> Params:
        return _place_like(init_from_encoders(params, encoders, config, tokenizer, message), params)

    ema = None if state.ema is None else initialize(state.ema, lambda _: None)  # one message for both
    return replace(state, params=initialize(state.params, message), ema=ema)


def _place_like(arrays: Params, template: Params) -> Params:
    """Places every NumPy array of `arrays` with dtype and sharding of `template`; jax arrays stay as they are."""

    def place(array: Any, like: jax.Array) -> jax.Array:
        if isinstance(array, jax.Array):
            return array
        array = np.asarray(array, like.dtype)
        return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])

    return jax.tree.map(place, arrays, template)
