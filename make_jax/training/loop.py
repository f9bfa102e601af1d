"""A run from its first line to its last. The order inside the loop never changes:

    evaluate, save, take the next batch, step, write

so that a checkpoint of step i holds the state before batch i is read, and i is also the data position. After the last
step, before it is evaluated, the heads of keyword evidence are fitted.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from make_jax.catalog.build import BuiltCatalog, build
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, check, to_json
from make_jax.errors import InputError
from make_jax.files import write_atomically
from make_jax.inputs.batch import Batch
from make_jax.inputs.device import Prefetch, prefetch
from make_jax.inputs.pipeline import train_batches
from make_jax.inputs.tokenizer import Tokenizer, from_definition, from_folder, train_wordpiece
from make_jax.interop.saved import Encoder
from make_jax.interop.starting import encoders_of
from make_jax.model.make import Make
from make_jax.retrieval.provenance import commit
from make_jax.retrieval.retriever import CHECKPOINTS, CONFIG, KEYWORDS, TOKENIZER, read_keywords
from make_jax.runs.checkpoints import Checkpoints, Found
from make_jax.runs.mesh import check_batch, check_groups, make_mesh, place_batch
from make_jax.runs.state import Params, TrainState, parameter_count
from make_jax.training.curves import draw
from make_jax.training.keyword_heads import fit_keyword_heads
from make_jax.training.optimizer import learning_rate
from make_jax.training.resume import check_same_run
from make_jax.training.start import with_encoders
from make_jax.training.step import init_state, make_step
from make_jax.training.telemetry import METRICS, Telemetry
from make_jax.training.validation import BEST_BY, Validation

CURVES = "curves.png"
Batches = Prefetch[Batch, dict[str, jax.Array]]


def train(config: Config) -> Path:
    """Trains what `config` says, from its run folder's last checkpoint if there is one; gives back the run folder.

    Raises InputError for bad settings or data, and when the loss stops being finite; the last good checkpoint stands.
    """
    check(config)
    folder = Path(config.run)
    mesh = make_mesh(config.train.fsdp)
    check_batch(config.train.batch_size, mesh)
    if config.objectives.qim or config.objectives.qim2:
        check_groups(config.train.batch_size, config.objectives.matching_group, mesh)
    catalog = Catalog.load(config.data.catalog)
    _check_splits(catalog)
    with ExitStack() as stack:
        checkpoints = Checkpoints(folder / CHECKPOINTS)
        stack.callback(checkpoints.close)
        found = checkpoints.latest_intact("last") if checkpoints.exists() else None
        if found is not None:
            check_same_run(config, catalog.digest, found)
        encoders = encoders_of(config) if found is None else {}  # before what takes long: a wrong setting ends it here
        built = build(catalog, config.data.cache)
        if found is None:
            tokenizer = make_tokenizer(config, catalog, encoders)
        else:
            tokenizer = from_definition(found.files[TOKENIZER])
        keywords = make_keywords(config, catalog) if found is None else read_keywords(found.files, found.path)
        model = Make(config.model, config.inputs, tokenizer.vocabulary_size, len(keywords), keywords.rivals)
        state = init_state(model, config, mesh)
        told: list[str] = []
        if found is not None:
            state, _ = checkpoints.restore(state, found)
        elif encoders:
            state = with_encoders(state, encoders, config, tokenizer, told.append)
        start = 0 if found is None else found.step
        if jax.process_index() == 0:
            write_atomically(folder / CONFIG, to_json(config))
            checkpoints.expect_room(state)  # now, not after the first hours
        telemetry = stack.enter_context(Telemetry(folder, config.train.steps, start_step=start))
        _greet(telemetry, config, catalog, built, state, start, mesh.size)
        for line in told:
            telemetry.note(line)
        validation = Validation(catalog, model, tokenizer, keywords, mesh, config.train.eval_batch_size)
        run = _Run(
            config,
            checkpoints,
            telemetry,
            validation,
            partial(
                fit_keyword_heads,
                model,
                catalog=catalog,
                tokenizer=tokenizer,
                keywords=keywords,
                mesh=mesh,
                batch_size=config.train.eval_batch_size,
                seed=config.train.seed,
                note=telemetry.note,
            ),
            catalog.digest,
            {CONFIG: to_json(config), TOKENIZER: tokenizer.definition, KEYWORDS: keywords.to_json()},
        )
        run.resume(found)
        batches = _batches(config, built, tokenizer, keywords, start)
        placed = stack.enter_context(prefetch(batches, partial(place_batch, mesh=mesh), max(1, config.data.prefetch)))
        stopped = _loop(run, state, make_step(model, config, mesh, state.params), placed, start)
        checkpoints.wait()
    draw(folder / METRICS, folder / CURVES)
    if stopped:
        raise KeyboardInterrupt
    return folder


def _batches(
    config: Config, built: BuiltCatalog, tokenizer: Tokenizer, keywords: KeywordVocabulary, start: int
) -> Iterator[Batch]:
    """This process's rows of the batches from `start` on, with what the objectives ask for."""
    return train_batches(
        built,
        tokenizer,
        keywords,
        config.inputs,
        config.data,
        swaps=config.objectives.keyword_swaps and len(keywords) > 0,
        masked_tokens=config.objectives.mlm > 0,
        masked_patch=config.model.image.patch if config.objectives.mpm else 0,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _loop(run: "_Run", state: TrainState, step: Any, batches: Batches, start: int) -> bool:
    """Steps to the end; gives back whether a signal stopped it before."""
    t = run.config.train
    with _asked_to_stop() as asked:
        for i in range(start, t.steps + 1):
            over = i == t.steps or bool(asked)
            if i > start and i == t.steps:
                run.flush(i, batches)
                state = run.fit_keyword_heads(state)
            if i > start and (i == t.steps or (t.eval_every and i % t.eval_every == 0)):
                run.flush(i, batches)
                run.evaluate(i, state)
            if i > start and (over or (t.save_every and i % t.save_every == 0)):
                run.flush(i, batches)
                run.save("last", i, state)
            if over:
                break
            batch = next(batches)
            state, metrics = step(state, batch)
            run.pending.append(metrics)
            run.telemetry.advance(i + 1)
            if (i + 1) % t.log_every == 0:
                run.flush(i + 1, batches)
    if asked:
        run.telemetry.note(f"stopped by {asked[0]}; saved step {i}; the same command goes on from there")
    return bool(asked)


@dataclass
class _Run:
    """What the loop tells and keeps."""

    config: Config
    checkpoints: Checkpoints
    telemetry: Telemetry
    validation: Validation
    fit_heads: Callable[[Params], Params]  # of keyword evidence, to the encoders among the parameters
    digest: str
    files: dict[str, str]  # what travels in every checkpoint
    best: float = -math.inf
    measured: dict[str, float] = field(default_factory=dict)  # the newest validation figures
    pending: list[dict[str, jax.Array]] = field(default_factory=list)  # metrics of steps that were not read yet
    clock: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    seconds: float = 0.0  # of training, over all starts of this run

    def resume(self, found: Found | None) -> None:
        """Takes over what the checkpoint remembers."""
        if found is not None:
            self.best, self.seconds = found.meta["best"], found.meta["seconds"]
            self.measured = found.meta["metrics"]
            self.best = -math.inf if self.best is None else self.best

    def flush(self, step: int, batches: Batches) -> None:
        """Reads and tells the metrics of the steps up to `step`. InputError when one of them is not finite."""
        if not self.pending:
            return
        told = [{name: float(value) for name, value in metrics.items()} for metrics in jax.device_get(self.pending)]
        first = step - len(told)
        for i, metrics in enumerate(told):
            if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["gradient_norm"])):
                raise InputError(
                    f"the loss or its gradient is not finite at step {first + i + 1} (steps {first + 1} to {step} were "
                    f"looked at); lower optim.learning_rate or optim.clip_norm; the last good checkpoint stands in "
                    f"{self.checkpoints.folder}"
                )
        now, waited = time.perf_counter(), batches.seconds_waited
        elapsed = now - self.clock
        self.telemetry.write(
            step,
            {
                **{name: float(np.mean([metrics[name] for metrics in told])) for name in told[0]},
                "learning_rate": float(learning_rate(self.config.optim, self.config.train.steps)(step)),
                "examples_per_second": len(told) * self.config.train.batch_size / elapsed,
                "data_wait": (waited - self.waited) / elapsed,
            },
        )
        self.seconds += elapsed
        self.pending, self.clock, self.waited = [], now, waited

    def fit_keyword_heads(self, state: TrainState) -> TrainState:
        """The state with the heads of keyword evidence fitted to its encoders."""
        if "keyword_evidence" not in state.params:
            return state
        self.telemetry.note("fitting keyword evidence to the training products; validation was without it until now")
        heads = self.fit_heads(state.eval_params)
        params = {**state.params, "keyword_evidence": heads}
        ema = None if state.ema is None else {**state.ema, "keyword_evidence": jax.tree.map(jnp.copy, heads)}
        return replace(state, params=params, ema=ema)

    def evaluate(self, step: int, state: TrainState) -> None:
        """Measures validation and saves the checkpoint when it is the best so far."""
        if self.validation.queries:
            self.measured = dict(self.validation.measure(state.eval_params))
            self.telemetry.write(step, self.measured)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in self.measured.items())
            self.telemetry.note(f"step {step}: {shown}")
        score = self.measured.get(BEST_BY, float(step))
        if score > self.best:
            self.best = score
            self.save("best", step, state)
        self.clock = time.perf_counter()

    def save(self, kind: Any, step: int, state: TrainState) -> None:
        """Starts a checkpoint in the background."""
        meta = {
            "position": step,  # global batches consumed
            "metrics": self.measured,
            "best": self.best if math.isfinite(self.best) else None,
            "seconds": self.seconds,
            "catalog_digest": self.digest,
            "commit": commit(),
            "jax": jax.__version__,
        }
        self.checkpoints.save(kind, step, state, meta, self.files)
        self.clock = time.perf_counter()


def make_tokenizer(config: Config, catalog: Catalog, encoders: Mapping[str, Encoder]) -> Tokenizer:
    """The tokenizer that the config names, else that of the weights that a text encoder begins with.

    Else a WordPiece of the training titles and clicked queries. InputError when weights come without a tokenizer.
    """
    if config.inputs.tokenizer:
        return from_folder(config.inputs.tokenizer)
    for setting, encoder in encoders.items():
        if encoder.tokenizer is not None:
            return from_definition(encoder.tokenizer)
        if encoder.kind == "text":
            raise InputError(
                f"{setting}.init_from: no tokenizer lies in {encoder.folder}; set inputs.tokenizer to the folder of "
                "the one that its weights belong to"
            )
    titles = [product.title for product in catalog.split_products("train")]
    return train_wordpiece([*titles, *(click.query for click in catalog.clicks)], config.inputs.vocabulary)


def make_keywords(config: Config, catalog: Catalog) -> KeywordVocabulary:
    """The keywords of the training products and clicks, or none where the config asks for none."""
    if not config.inputs.keywords:
        return KeywordVocabulary(())
    return mine_keywords(catalog, attributes=config.inputs.keyword_attributes, largest=config.inputs.keywords)


@contextmanager
def _asked_to_stop() -> Iterator[list[str]]:
    """A list that Ctrl-C or SIGTERM appends its name to; a second Ctrl-C interrupts at once."""
    asked: list[str] = []

    def remember(number: int, _: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_splits(catalog: Catalog) -> None:
    if not catalog.split_products("train"):
        raise InputError(f'{catalog.path}: no product of the train split; set "split": "train" in products.jsonl')
    if not catalog.clicks:
        raise InputError(
            f"{catalog.path}: no clicks to train on; expected clicks.jsonl with lines of query and product"
        )


def _greet(
    telemetry: Telemetry, config: Config, catalog: Catalog, built: BuiltCatalog, state: TrainState, start: int, n: int
) -> None:
    telemetry.note(
        f"{catalog.info.name}: {len(built.products('train')):,} training products, {len(catalog.clicks):,} clicks; "
        f"{parameter_count(state.params) / 1e6:.1f}M parameters; {n} {jax.devices()[0].platform} device(s); "
        f"{config.run}" + (f"; goes on from step {start}" if start else "")
    )
    if start == 0:
        telemetry.note("compiling the step, which takes a while")
