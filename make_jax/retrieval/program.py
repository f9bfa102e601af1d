"""What eval.py does: load, evaluate, write the report, print it."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from make_jax.catalog.reader import Catalog
from make_jax.command_line import EvalOptions
from make_jax.config import from_json
from make_jax.retrieval.evaluate import embed_all, evaluate
from make_jax.retrieval.provenance import about
from make_jax.retrieval.render import print_report
from make_jax.retrieval.report import write_report
from make_jax.retrieval.rerank import DEFAULT_DEPTH
from make_jax.retrieval.retriever import CONFIG, Retriever, read_checkpoint


def evaluate_run(options: EvalOptions) -> Path | None:
    """Writes the report of a run on a catalog, prints its tables, and gives back the report's folder.

    With `only_embed` it makes the vectors, writes no report and gives back None.
    """
    console = Console()
    _, meta, files = read_checkpoint(options.run, options.checkpoint)
    config = from_json(files[CONFIG], f"{options.run}/{CONFIG}")
    catalog = Catalog.load(options.data.catalog or config.data.catalog)
    folder = Path(options.out or f"{options.run}/eval/{catalog.info.name}-{options.split}")
    retriever = Retriever.load(options.run, options.checkpoint)
    stored = Path(options.embeddings) if options.embeddings else None
    if options.only_embed and stored is not None:
        with _Bars(console) as bars:
            embed_all(retriever, catalog, options.split, stored, bars.show)
        console.print(f"all vectors are in {stored}", highlight=False)
        return None
    depth, rerank = options.depth, options.rerank
    if rerank is None:
        rerank = min(DEFAULT_DEPTH, depth) if retriever.can_match else 0
    with _Bars(console) as bars:
        evaluation = evaluate(
            retriever, catalog, options.split, depth=depth, rerank=rerank, stored=stored, progress=bars.show
        )
    made = about(
        catalog,
        seed=config.train.seed,
        run={"steps": meta["position"], "checkpoint": options.checkpoint, "training_seconds": meta["seconds"]},
    )
    report = write_report(evaluation, catalog, folder, made)
    print_report(report, console)
    console.print(f"report: {folder}/report.md, gallery.png, weights.png, runs/", highlight=False)
    return folder


class _Bars:
    """Progress bars that appear as evaluation names what it does."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=min(done, total))
