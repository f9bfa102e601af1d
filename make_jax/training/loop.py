"""A run from its first line to its last. The order inside the loop never changes:

    evaluate, save, take the next batch, step, write

so that a checkpoint of step i holds the state before batch i is read, and i is also the data position. After the last
step, before it is evaluated, the heads of keyword evidence are fitted.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from make_jax.catalog.build import BuiltCatalog, build
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, check, to_json
from make_jax.errors import InputError
from make_jax.files import write_atomically
from make_jax.inputs.batch import Batch
from make_jax.inputs.device import Prefetch, prefetch
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.inputs.train_pipeline import train_batches
from make_jax.model.make import Make
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.mesh import check_batch_config, make_mesh, shard_batch
from make_jax.runs.processes import Processes, init_distributed
from make_jax.runs.provenance import commit
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, KEYWORDS, TOKENIZER
from make_jax.runs.state import Params, TrainState, parameter_count
from make_jax.training.curves import draw_curves
from make_jax.training.data_fingerprint import make_fingerprint_update
from make_jax.training.initialization import Start, find_start
from make_jax.training.keyword_heads import fit_keyword_heads
from make_jax.training.metric_logger import METRICS, MetricLogger, Silent
from make_jax.training.optimizer import learning_rate_schedule
from make_jax.training.profiling import StepProfiler
from make_jax.training.resume_check import values_to_agree_on
from make_jax.training.step import init_state, make_step
from make_jax.training.stopping import Stop, StopRequested, stop_on_signals
from make_jax.training.utilization import Utilization
from make_jax.training.validation import BEST_METRIC, Validator

CURVES, PROFILE = "curves.png", "profile"  # in a run's folder
Batches = Prefetch[Batch, dict[str, jax.Array]]


def train(config: Config) -> Path:
    """Trains what `config` says and gives back the run folder; `training/initialization.py` says where a run starts.

    Raises InputError for bad settings or data, and when the loss stops being finite; the last good checkpoint stands.
    Ctrl-C and SIGTERM save and raise KeyboardInterrupt and Terminated.
    """
    check(config)
    checkpoints = Checkpoints(Path(config.run) / CHECKPOINTS, config.train.max_to_keep)
    with init_distributed(config.distributed, checkpoints.newest, Path(config.run)) as processes, closing(checkpoints):
        return _train(config, checkpoints, processes)


def _train(config: Config, checkpoints: Checkpoints, processes: Processes) -> Path:
    """What `train` does, in each of the processes."""
    folder = Path(config.run)
    mesh = make_mesh(config.train.fsdp)
    check_batch_config(config, mesh)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        catalog = Catalog.load(config.data.catalog)
        _check_splits(catalog)
        processes.check_equal(values_to_agree_on(config, catalog.digest))
        start = find_start(config, catalog, checkpoints)
        tokenizer, keywords = start.tokenizer, start.keywords
        built = build(catalog, config.data.cache)
        model = Make(config.model, config.inputs, tokenizer.vocab_size, len(keywords), keywords.exclusion_groups)
        told: list[str] = []
        state = start.state(init_state(model, config, mesh), checkpoints, config, told.append)
        if processes.is_coordinator:
            write_atomically(folder / CONFIG, to_json(config))
            checkpoints.expect_room(state)  # now, not after the first hours
        telemetry: MetricLogger | Silent = Silent()
        if processes.is_coordinator:
            telemetry = stack.enter_context(MetricLogger(folder, config.train.steps, start_step=start.step))
        # Of process 0 alone, which stands for the others: two of one machine would write the same file.
        profile = StepProfiler(config.train.profile if processes.is_coordinator else "", folder / PROFILE)
        stack.callback(profile.close)
        for line in told:
            telemetry.note(line)
        _greet(telemetry, config, catalog, built, state, start, mesh.size)
        run = _Run(
            config,
            checkpoints,
            processes,
            telemetry,
            Utilization(config, mesh),
            profile,
            stop,
            Validator(catalog, model, tokenizer, keywords, mesh, config.train.eval_batch_size),
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
                give_way=stop.raise_if_stopping,
            ),
            make_fingerprint_update(mesh),
            {"catalog_digest": catalog.digest, "init_from": start.origin, "commit": commit(), "jax": jax.__version__},
            {CONFIG: to_json(config), TOKENIZER: tokenizer.definition, KEYWORDS: keywords.to_json()},
        )
        run.resume(start)
        batches = _batches(config, built, tokenizer, keywords, start.step)
        placed = stack.enter_context(prefetch(batches, partial(shard_batch, mesh=mesh), max(1, config.data.prefetch)))
        stopped = _loop(run, state, make_step(model, config, mesh, state.params), placed, start.step)
        checkpoints.wait()
        processes.finish()
        if processes.is_coordinator:
            draw_curves(folder / METRICS, folder / CURVES)
        if stopped is not None:
            stop.raise_stopped(f"step {stopped} is saved")
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
        keyword_swaps=config.objectives.keyword_swaps and len(keywords) > 0,
        mlm=config.objectives.mlm > 0,
        mpm_patch_size=config.model.image.patch_size if config.objectives.mpm else 0,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _loop(run: "_Run", state: TrainState, step: Any, batches: Batches, start: int) -> int | None:
    """Steps to the end; gives back the step at which a signal stopped it before."""
    t = run.config.train
    for i in range(start, t.steps + 1):
        if i > run.evaluated and (i == t.steps or (t.eval_every and i % t.eval_every == 0)):
            run.flush(i, batches)
            try:
                if i == t.steps:
                    state = run.fit_keyword_heads(state)
                run.evaluate(i, state)
            except StopRequested:
                pass  # it is done again when the run goes on
        stopped = run.stop.should_stop()
        over = stopped or i == t.steps
        if run.unsaved and (over or (t.save_every and i % t.save_every == 0)):
            run.flush(i, batches)
            run.save("last", i, state)
        if over:
            return i if stopped else None
        batch = next(batches)
        run.utilization.count_flops(step, state, batch)
        state, metrics = run.profile.run(i + 1, step, state, batch)
        run.remember(i + 1, batch, metrics)
        if (i + 1) % t.log_every == 0:
            run.flush(i + 1, batches)
    raise AssertionError("a run ends at its last step")


@dataclass
class _Run:
    """What the loop tells and keeps."""

    config: Config
    checkpoints: Checkpoints
    processes: Processes
    telemetry: MetricLogger | Silent
    utilization: Utilization
    profile: StepProfiler
    stop: Stop
    validation: Validator
    fit_heads: Callable[[Params], Params]  # of keyword evidence, to the encoders among the parameters
    fold: Callable[[Any, dict[str, jax.Array]], jax.Array]  # of training/data_fingerprint.py
    about: dict[str, Any]  # what every checkpoint says of the run
    files: dict[str, str]  # what travels in every checkpoint
    best: float = -math.inf
    measured: dict[str, float] = field(default_factory=dict)  # the newest validation figures
    evaluated: int = 0  # the step of the newest evaluation, finished; at the last one heads are fitted too
    unsaved: bool = False  # whether the newest `last` checkpoint lacks something
    pending: list[dict[str, jax.Array]] = field(default_factory=list)  # metrics of steps that were not read yet
    seen: Any = 0  # uint32 [], what training/data_fingerprint.py makes of all batches so far
    clock: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    seconds: float = 0.0  # of training, over all starts of this run

    def resume(self, start: Start) -> None:
        """Takes over what the checkpoint remembers; one of before `evaluated` was told was evaluated."""
        meta = start.remembered
        if meta:
            self.best = -math.inf if meta["best"] is None else meta["best"]
            self.seconds, self.measured = meta["seconds"], meta["metrics"]
            self.evaluated, self.seen = meta.get("evaluated", start.step), meta.get("seen", 0)
        if start.ranks_otherwise(self.config):
            self.best, self.evaluated = -math.inf, start.step - 1  # the last step is evaluated, and saved, anew

    def remember(self, step: int, batch: dict[str, jax.Array], metrics: dict[str, jax.Array]) -> None:
        """Remembers a step that is under way. No more than two are, so that a stop need not wait for many."""
        self.unsaved = self.stop.has_stepped = True
        self.seen = self.fold(jnp.uint32(self.seen), batch)
        self.pending.append(metrics)
        if len(self.pending) > 2:
            jax.block_until_ready(self.pending[-3])
        self.telemetry.advance(step)
        self.processes.step = step

    def flush(self, step: int, batches: Batches) -> None:
        """Reads and tells the metrics of the steps up to `step`. InputError when one of them is not finite."""
        if not self.pending:
            return
        read, self.seen = jax.device_get((self.pending, self.seen))
        told = [{name: float(value) for name, value in metrics.items()} for metrics in read]
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
                "learning_rate": float(learning_rate_schedule(self.config.optim, self.config.train.steps)(step)),
                **self.utilization.metrics(len(told), elapsed),
                "data_wait": (waited - self.waited) / elapsed,
            },
            seen=f"{int(self.seen):08x}",
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
            measured = self.validation.measure(state.eval_params, lambda *_: self.stop.raise_if_stopping())
            self.measured = self.processes.broadcast(measured)
            self.telemetry.write(step, self.measured)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in self.measured.items())
            self.telemetry.note(f"step {step}: {shown}")
        self.evaluated, self.unsaved = step, True
        score = self.measured.get(BEST_METRIC, float(step))
        if score > self.best:
            self.best = score
            self.save("best", step, state)
        self.clock = time.perf_counter()

    def save(self, kind: Any, step: int, state: TrainState) -> None:
        """Starts a checkpoint in the background."""
        meta = {
            **self.about,
            "position": step,  # global batches consumed
            "seen": int(self.seen),
            "evaluated": self.evaluated,
            "metrics": self.measured,
            "best": self.best if math.isfinite(self.best) else None,
            "seconds": self.seconds,
        }
        self.checkpoints.save(kind, step, state, meta, self.files)
        self.unsaved = self.unsaved and kind != "last"
        self.clock = time.perf_counter()


def _check_splits(catalog: Catalog) -> None:
    if not catalog.split_products("train"):
        raise InputError(f'{catalog.path}: no product of the train split; set "split": "train" in products.jsonl')
    if not catalog.clicks:
        raise InputError(
            f"{catalog.path}: no clicks to train on; expected clicks.jsonl with lines of query and product"
        )


def _greet(
    telemetry: MetricLogger | Silent,
    config: Config,
    catalog: Catalog,
    built: BuiltCatalog,
    state: TrainState,
    start: Start,
    n: int,
) -> None:
    telemetry.note(
        f"{catalog.info.name}: {len(built.products('train')):,} training products, {len(catalog.clicks):,} clicks; "
        f"{parameter_count(state.params) / 1e6:.1f}M parameters; {n} {jax.devices()[0].platform} device(s); "
        f"{config.run}" + (f"; goes on from step {start.step}" if start.step else "")
    )
    for note in start.notes(config):
        telemetry.note(note)
    if start.step == 0:
        telemetry.note("compiling the step, which takes a while")
