"""What a run starts from, the first of these that there is:

its own newest intact checkpoint     goes on: state, data position, tokenizer, keywords
train.init_from                      step 0 with the weights, tokenizer and keywords of another run
model.*.init_from                    step 0 with public encoders and their tokenizer, the rest new
the seed                             step 0, all of it new
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, from_json
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer, add_characters, load_tokenizer, train_wordpiece
from make_jax.interop.encoder_files import PretrainedEncoder
from make_jax.interop.init_encoders import read_init_encoders
from make_jax.runs import checkpoints as checkpoints_of
from make_jax.runs.checkpoints import CheckpointInfo, Checkpoints
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, TOKENIZER, read_keywords
from make_jax.runs.state import TrainState
from make_jax.training.public_encoders import with_encoders
from make_jax.training.resume_check import check_resumable, config_differences


@dataclass(frozen=True)
class Start:
    """Where a run starts."""

    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    own: CheckpointInfo | None = None  # the run's checkpoint that it goes on from
    source: CheckpointInfo | None = None  # the checkpoint whose weights it begins with
    encoders: Mapping[str, PretrainedEncoder] = field(default_factory=dict)  # by the setting that names them

    @property
    def step(self) -> int:
        """Training steps that are done."""
        return 0 if self.own is None else self.own.step

    @property
    def remembered(self) -> Mapping[str, Any]:
        """What the run's checkpoint says beside the state; nothing in a run that begins."""
        return {} if self.own is None else self.own.meta

    def ranks_otherwise(self, config: Config) -> bool:
        """Whether the run is over and was measured with another keyword_scale, which no training depends on."""
        if self.own is None or self.step < config.train.steps:
            return False
        before = from_json(self.own.files[CONFIG], f"{self.own.path}/{CONFIG}")
        return before.model.keyword_scale != config.model.keyword_scale

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """What a checkpoint tells of the weights that the run began with; None: they came from the seed."""
        if self.source is None:
            return self.remembered.get("init_from")
        meta = self.source.meta
        about = {name: meta.get(name) for name in ("catalog_digest", "commit", "init_from")}
        return {"checkpoint": str(self.source.path), "digest": checkpoints_of.digest(self.source), **about}

    def state(
        self, fresh: TrainState, checkpoints: Checkpoints, config: Config, note: Callable[[str], None]
    ) -> TrainState:
        """The state to go on from; `fresh` is what the seed gives, on the devices of this run; `note` is told of what
        public encoders needed.

        Raises InputError that lists the leaves which the checkpoint lacks, has besides, or has in another shape.
        """
        if self.own is not None:
            return checkpoints.restore(fresh, self.own)[0]
        if self.source is not None:
            # Heads are fitted to encoders that are done; those of the source would judge encoders that have moved on.
            params = checkpoints.restore_params(fresh.params, self.source, but="keyword_evidence")
            ema = None if fresh.ema is None else jax.tree.map(jnp.copy, params)
            return replace(fresh, params=params, ema=ema)
        return with_encoders(fresh, self.encoders, config, self.tokenizer, note) if self.encoders else fresh

    def notes(self, config: Config) -> list[str]:
        """What to tell the user of a run that begins with the weights of another."""
        if self.source is None:
            return []
        before = from_json(self.source.files[CONFIG], f"{self.source.path}/{CONFIG}")
        parts = [("model", config.model, before.model), ("inputs", config.inputs, before.inputs)]
        other = [
            f"{name} is {here!r} here and {there!r} there"
            for part, a, b in parts
            for name, here, there in config_differences(a, b, f"{part}.")
        ]
        told = f"begins with the weights, tokenizer and keywords of {self.source.path}"
        return [told + (f"; beware: {'; '.join(other)}" if other else "")]


def find_start(config: Config, catalog: Catalog, checkpoints: Checkpoints) -> Start:
    """Where the run of `config` starts; reads no arrays.

    Raises InputError when its folder holds a run with other settings or no intact checkpoint, and when
    `train.init_from` is no run or contradicts `inputs.tokenizer`.
    """
    if checkpoints.exists():
        own = checkpoints.latest_intact("last")
        check_resumable(config, catalog.digest, own)
        return Start(Tokenizer(own.files[TOKENIZER]), read_keywords(own.files, own.path), own=own)
    if config.train.init_from:
        source = find_source(config.train.init_from)
        tokenizer = Tokenizer(source.files[TOKENIZER])
        asked = config.inputs.tokenizer
        if asked and load_tokenizer(asked).definition != tokenizer.definition:
            raise InputError(
                f"inputs.tokenizer is {asked!r}, expected that of train.init_from {source.path}, whose weights mean "
                "nothing with other tokens; leave inputs.tokenizer empty"
            )
        keywords = read_keywords(source.files, source.path)
        return Start(tokenizer, keywords if len(keywords) else make_keywords(config, catalog), source=source)
    encoders = read_init_encoders(config)
    return Start(make_tokenizer(config, catalog, encoders), make_keywords(config, catalog), encoders=encoders)


def find_source(path: str) -> CheckpointInfo:
    """The checkpoint that `train.init_from` names: a run's best one, or the very one whose folder is named."""
    folder = Path(path)
    if (folder / CHECKPOINTS).is_dir():
        return Checkpoints(folder / CHECKPOINTS).latest_intact("best")
    if (folder / checkpoints_of.STATE).is_dir():
        return checkpoints_of.read(folder)
    expected = "expected a run's folder or one of its checkpoints, such as RUN/checkpoints/best/000200"
    raise InputError(f"train.init_from is {path!r}, {expected}")


def make_tokenizer(
    config: Config, catalog: Catalog, encoders: Mapping[str, PretrainedEncoder] | None = None
) -> Tokenizer:
    """The tokenizer that the config names, else that of the weights that a text encoder begins with, with new pieces.

    Else a WordPiece of the training titles and clicked queries. InputError when weights come without a tokenizer.
    """
    if config.inputs.tokenizer:
        return load_tokenizer(config.inputs.tokenizer)
    for setting, encoder in (encoders or {}).items():
        if encoder.tokenizer is not None:
            theirs = Tokenizer(encoder.tokenizer)
            more = config.inputs.new_characters
            return add_characters(theirs, _texts(catalog), more) if more else theirs
        if encoder.kind == "text":
            raise InputError(
                f"{setting}.init_from: no tokenizer lies in {encoder.folder}; set inputs.tokenizer to the folder of "
                "the one that its weights belong to"
            )
    return train_wordpiece(_texts(catalog), config.inputs.vocab_size)


def _texts(catalog: Catalog) -> list[str]:
    """Training titles and clicked queries."""
    titles = [product.title for product in catalog.split_products("train")]
    return [*titles, *(click.query for click in catalog.clicks)]


def make_keywords(config: Config, catalog: Catalog) -> KeywordVocabulary:
    """The keywords of the training products and clicks, or none where the config asks for none."""
    if not config.inputs.max_keywords:
        return KeywordVocabulary(())
    return mine_keywords(catalog, attributes=config.inputs.keyword_attributes, max_keywords=config.inputs.max_keywords)
