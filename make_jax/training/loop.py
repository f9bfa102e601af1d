"""One training run, from first line to last: `train` sets it up, `Trainer.run` is the loop.

The order inside the loop never changes:

    evaluate, save, take the next batch, step, write

so a checkpoint of step i holds the state before batch i is read, and i is also the data position. Each evaluation first
fits the keyword heads to the parameters of its step, so that the validation metrics of all steps can be compared and
the best checkpoint has the heads of its own parameters. Training goes on without them.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from make_jax.catalog.build import BuiltCatalog, build
from make_jax.catalog.derived_queries import training_catalog
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, check, to_json
from make_jax.errors import InputError
from make_jax.files import write_atomically
from make_jax.inputs.batch import Batch
from make_jax.inputs.device import DevicePrefetch
from make_jax.inputs.train_pipeline import train_batches
from make_jax.model.attention import check_attention
from make_jax.model.make import Make
from make_jax.model.modal_adaptation import modality_weights
from make_jax.object_stores import local_path
from make_jax.objectives.total import check_objectives
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.mesh import check_batch_config, make_mesh, shard_batch
from make_jax.runs.processes import Processes, init_distributed
from make_jax.runs.provenance import commit
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, KEYWORDS, TOKENIZER
from make_jax.runs.run_store import RunStore
from make_jax.runs.state import Params, TrainState, parameter_count
from make_jax.runs.training_data import write_record
from make_jax.training.checkpointing import CheckpointSaver, Progress
from make_jax.training.curves import draw_curves
from make_jax.training.eval_context import EvalContext
from make_jax.training.initialization import KEYWORD_HEADS, Initialization, find_initialization
from make_jax.training.keyword_heads import fit_keyword_heads
from make_jax.training.metric_logger import MetricLogger, open_logger
from make_jax.training.metric_writers import check_writers
from make_jax.training.metric_writers.jsonl import METRICS
from make_jax.training.optimizer import warmup_steps
from make_jax.training.profiling import StepProfiler
from make_jax.training.resume_check import values_to_agree_on
from make_jax.training.step import init_state, make_step
from make_jax.training.step_metrics import StepMetrics
from make_jax.training.stopping import Stop, StopRequested, stop_on_signals
from make_jax.training.validation import BEST_METRIC, Validator

CURVES, PROFILE = "curves.png", "profile"  # in a run's folder
COMPILING = "compiling the training step, which takes a while"
FITTING = "fitting the keyword heads to the training products"
DeviceBatches = DevicePrefetch[Batch, dict[str, jax.Array]]


def train(config: Config) -> Path:
    """Trains by the settings in `config` and returns the run folder.

    Raises InputError for bad settings or data, and if the loss is no longer finite; the last good checkpoint is kept.
    Ctrl-C and SIGTERM save, then end a program that has called `signals.exit_on_signals`, and raise KeyboardInterrupt
    or Terminated in others.
    """
    check(config)
    check_attention(config.model)
    modality_weights(config.model.adaptation.weights)  # raises InputError for an unknown name
    check_objectives(config.objectives)
    check_writers(config.train.writers)
    store = RunStore(config.run)
    checkpoints = Checkpoints(store.folder / CHECKPOINTS, config.train.max_to_keep, store.upload_checkpoint)
    with (
        init_distributed(config.distributed, checkpoints.newest, store.folder) as processes,
        closing(checkpoints),
        stop_on_signals(processes.forward_sigterm) as stop,
        ExitStack() as input_workers,
    ):
        store.start(processes)
        with ExitStack() as logs:
            trainer, state, start_step = set_up(config, checkpoints, processes, stop, logs, input_workers)
            if processes.is_coordinator:
                store.upload()  # fail now rather than at the first checkpoint, hours later
            stopped_at = trainer.run(state, start_step)
            checkpoints.wait()
            processes.finish()
        if processes.is_coordinator:
            store.upload()  # the end of the logs
        if stopped_at is not None:
            stop.end(stopped_at)  # does not wait for the input workers
    return store.folder


def set_up(
    config: Config,
    checkpoints: Checkpoints,
    processes: Processes,
    stop: Stop,
    logs: ExitStack,
    input_workers: ExitStack,
) -> tuple["Trainer", TrainState, int]:
    """Returns the trainer of a run, the state it starts from and the number of steps already done."""
    # --- Devices and data
    mesh = make_mesh(config.train.fsdp)
    check_batch_config(config, mesh)
    catalog = _load_catalog(config)
    processes.check_equal(values_to_agree_on(config, catalog.digest))

    # --- Model and state: own checkpoint, else another run's weights, else pretrained encoders, else the seed
    init = find_initialization(config, catalog, checkpoints)
    built = build(catalog, config.data.cache)
    groups = init.keywords.exclusion_groups
    model = Make(config.model, config.inputs, init.tokenizer.vocab_size, len(init.keywords), groups)
    messages: list[str] = []
    state = init.initialize(init_state(model, config, mesh), checkpoints, config, messages.append)

    # --- Run folder and logs, written by process 0 only
    if processes.is_coordinator:
        write_atomically(local_path(config.run) / CONFIG, to_json(config))
        write_record(local_path(config.run), catalog, init.provenance, resumed=init.own is not None, built=built.folder)
        checkpoints.check_free_space(state)  # fail now rather than at the first save, hours later
    logger, profiler = _open_logs(config, init.step, processes, logs)
    for message in [*messages, *_start_messages(config, catalog, built, state, init, mesh)]:
        logger.message(message)

    # --- The parts of the loop
    context = EvalContext(catalog, model, init.tokenizer, init.keywords, mesh, config.train.eval_batch_size)
    progress = Progress.restore(init, config)
    validator = _open_validator(context, logger)
    batches = input_workers.enter_context(_device_batches(config, built, init, mesh, logger))
    trainer = Trainer(
        config=config,
        step=make_step(model, config, mesh, state.params),
        batches=batches,
        metrics=StepMetrics(config, mesh, batches, progress, logger),
        progress=progress,
        saver=_checkpoint_saver(config, checkpoints, progress, catalog, init),
        validator=validator,
        fit_keyword_heads=partial(
            fit_keyword_heads,
            context,
            seed=config.train.seed,
            message=logger.message,
            raise_if_stopping=stop.raise_if_stopping,
        ),
        logger=logger,
        profiler=profiler,
        stop=stop,
        processes=processes,
    )
    if init.needs_reevaluation(config):
        trainer.reevaluate_best(checkpoints, state)
    return trainer, state, init.step


@dataclass
class Trainer:
    """The training loop and its parts."""

    config: Config
    step: Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]  # with metrics
    batches: DeviceBatches  # from the data position of the start step on
    metrics: StepMetrics
    progress: Progress
    saver: CheckpointSaver
    validator: Validator
    fit_keyword_heads: Callable[[Params], Params]  # all parameters -> those of the keyword heads
    logger: MetricLogger
    profiler: StepProfiler
    stop: Stop
    processes: Processes

    def run(self, state: TrainState, start_step: int) -> int | None:
        """Trains to the last step and returns None, or returns the step at which a signal stopped the run."""
        train = self.config.train
        for i in range(start_step, train.steps + 1):
            is_last = i == train.steps

            # evaluate
            if i > self.progress.evaluated_step and (is_last or _every(train.eval_every, i)):
                evaluated = self.evaluate(i, state)
                state = evaluated if is_last else state  # in between, heads would soon be those of older parameters

            # save
            should_stop = self.stop.should_stop()
            if self.saver.unsaved and (is_last or should_stop or _every(train.save_every, i)):
                self.metrics.flush(i)
                self.saver.save("last", i, state)
                self.metrics.restart_clock()
            if is_last or should_stop:
                return i if should_stop else None

            # take the next batch
            batch = next(self.batches)

            # step
            self.metrics.utilization.count_flops(self.step, state, batch)
            state, metrics = self.profiler.run(i + 1, self.step, state, batch)
            self.stop.has_stepped = self.saver.unsaved = True
            self.metrics.add(i + 1, batch, metrics)
            self.processes.step = i + 1

            # write
            if _every(train.log_every, i + 1):
                self.metrics.flush(i + 1)
        raise AssertionError("unreachable: a run returns at its last step")

    def evaluate(self, step: int, state: TrainState) -> TrainState:
        """Fits the keyword heads, measures validation, and saves the checkpoint if it is the best so far.

        Returns the state with the fitted heads. A stop request ends it early; the restarted run repeats it.
        """
        self.metrics.flush(step)
        try:
            if KEYWORD_HEADS in state.params:
                state = self._with_keyword_heads(state)
            if self.validator.query_count:
                values = self.validator.measure(state.eval_params, lambda *_: self.stop.raise_if_stopping())
                self.progress.validation = self.processes.broadcast(values)  # all must take the same decisions
                self.logger.write(step, self.progress.validation)
                shown = "  ".join(f"{name} {value:.4f}" for name, value in self.progress.validation.items())
                self.logger.message(f"step {step}: {shown}")
        except StopRequested:
            return state
        self.progress.evaluated_step, self.saver.unsaved = step, True
        score = self.progress.validation.get(BEST_METRIC, float(step))
        if score > self.progress.best_score:
            self.progress.best_score = score
            self.saver.save("best", step, state)
        self._draw_curves()
        self.metrics.restart_clock()
        return state

    def _draw_curves(self) -> None:
        """Draws what metrics.jsonl holds so far."""
        metrics = local_path(self.config.run) / METRICS
        if self.processes.is_coordinator and metrics.exists():
            draw_curves(metrics, metrics.with_name(CURVES))

    def reevaluate_best(self, checkpoints: Checkpoints, last: TrainState) -> None:
        """Measures the best checkpoint by the present settings, as all later evaluations will be."""
        best = checkpoints.latest_intact("best")
        if best.kind == "best" and best.step < self.config.train.steps:
            self.evaluate(best.step, checkpoints.restore(last, best)[0])

    def _with_keyword_heads(self, state: TrainState) -> TrainState:
        """The state with keyword heads fitted to its encoders."""
        self.logger.message(FITTING)
        heads = self.fit_keyword_heads(state.eval_params)
        ema = None if state.ema is None else {**state.ema, KEYWORD_HEADS: jax.tree.map(jnp.copy, heads)}
        return replace(state, params={**state.params, KEYWORD_HEADS: heads}, ema=ema)


def _every(interval: int, step: int) -> bool:
    """Whether something is due at `step` that happens every `interval` steps; 0 means never."""
    return interval > 0 and step % interval == 0


def _load_catalog(config: Config) -> Catalog:
    """The catalog with its training pairs; InputError without products or pairs to train on."""
    catalog = training_catalog(config.data.catalog, config.data.queries, config.train.seed, config.data.cache)
    if not catalog.split_products("train"):
        raise InputError(f'{catalog.path}: no product of the train split; set "split": "train" in products.jsonl')
    if not catalog.clicks:
        raise InputError(
            f"{catalog.path}: no clicks to train on; expected clicks.jsonl with lines of query and product, or "
            "--data.queries derived, which makes queries from titles and attributes"
        )
    return catalog


def _open_logs(config: Config, step: int, processes: Processes, logs: ExitStack) -> tuple[MetricLogger, StepProfiler]:
    """The logger and the profiler of a run that starts from `step`, silent but in process 0; `logs` closes them."""
    if not processes.is_coordinator:
        return MetricLogger(), StepProfiler("", Path())
    logger = logs.enter_context(open_logger(config, step))
    profiler = StepProfiler(config.train.profile, local_path(config.run) / PROFILE)
    logs.callback(profiler.close)
    return logger, profiler


def _open_validator(context: EvalContext, logger: MetricLogger) -> Validator:
    """The validator; logs why validation is off, if it is."""
    validator = Validator(context)
    if validator.off_message:
        logger.message(validator.off_message)
    return validator


def _device_batches(
    config: Config, built: BuiltCatalog, init: Initialization, mesh: Mesh, logger: MetricLogger
) -> DeviceBatches:
    """This process's rows of the batches from the start step on, placed on its devices."""
    batches = train_batches(
        built,
        init.tokenizer,
        init.keywords,
        config.inputs,
        config.data,
        keyword_swaps=config.objectives.keyword_swaps and len(init.keywords) > 0,
        mlm=config.objectives.mlm > 0,
        mpm_patch_size=config.model.image.patch_size if config.objectives.mpm else 0,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=init.step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        message=logger.message,
    )
    return DevicePrefetch(batches, partial(shard_batch, mesh=mesh), config.data.prefetch)


def _checkpoint_saver(
    config: Config, checkpoints: Checkpoints, progress: Progress, catalog: Catalog, init: Initialization
) -> CheckpointSaver:
    metadata = {
        "catalog_digest": catalog.digest,
        "init_from": init.provenance,
        "commit": commit(),
        "jax": jax.__version__,
    }
    files = {CONFIG: to_json(config), TOKENIZER: init.tokenizer.definition, KEYWORDS: init.keywords.to_json()}
    return CheckpointSaver(checkpoints, progress, metadata, files)


def _start_messages(
    config: Config, catalog: Catalog, built: BuiltCatalog, state: TrainState, init: Initialization, mesh: Mesh
) -> list[str]:
    """What the terminal shows before the first step."""
    pairs = {"clicks": "clicks", "derived": "derived queries", "both": "clicks and derived queries"}
    summary = (
        f"{catalog.info.name}: {len(built.products('train')):,} training products, "
        f"{len(catalog.clicks):,} {pairs[config.data.queries]}; "
        f"{parameter_count(state.params) / 1e6:.1f}M parameters; {mesh.size} {jax.devices()[0].platform} device(s); "
        f"{config.run}"
    )
    if init.step:
        return [f"{summary}; resuming from step {init.step}", *init.describe(config)]
    steps, warmup = config.train.steps, warmup_steps(config.optim, config.train.steps)
    short = f"optim.warmup_steps is cut from {config.optim.warmup_steps} to {warmup}, because train.steps is {steps}"
    notes = [short] if warmup < config.optim.warmup_steps else []
    return [summary, *init.describe(config), *notes, COMPILING]
