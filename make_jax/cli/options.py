"""Options of `eval` and `convert`; those of `train` are the settings in `make_jax.config`. Imports no jax."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from make_jax.cli.parsing import parse_options
from make_jax.errors import InputError
from make_jax.interop.formats import ExportFormat


@dataclass(frozen=True)
class EvalData:
    """The catalog of an evaluation."""

    catalog: str = ""  # folder or .zip in the catalog format, or URL; "": the run's catalog, or else the packaged one


@dataclass(frozen=True)
class EvalOptions:
    """Options of `eval`."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]  # run, folder of another model, bm25
    data: EvalData = field(default_factory=EvalData)
    split: Literal["train", "val", "test"] = "test"  # the queries
    pool: Literal["catalog", "split", "all", "judged"] = "catalog"  # products to search; catalog: as in catalog.json
    out: str = ""  # folder or URL of the report; "": RUN/eval/<catalog>-<split>, or runs/eval/<model>/...
    checkpoint: Literal["best", "last"] = "best"  # of a run; best: highest validation metric; last: newest
    embeddings: str = ""  # folder or URL that stores the product embeddings, for more than memory; "": none
    # HOST:PORT of the head node of a Ray cluster whose devices embed, or auto; "": this process. Needs --embeddings.
    ray: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = ""
    only_embed: bool = False  # stop when all embeddings are stored: for processes that assist the evaluating one
    depth: int = 1000  # products per query in the run files; the metrics read 1000 even if it is less
    rerank: int | None = None  # top products per query to re-rank; None: 50 with a trained matching encoder, else 0


@dataclass(frozen=True)
class CompareOptions:
    """Options of `eval compare`."""

    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="REPORT-A")]  # folder that eval wrote
    b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="REPORT-B")]  # another one, or the same
    system_a: str = ""  # of report A; "" is its main system
    system_b: str = ""  # of report B; "" is its main system
    seed: int = 0  # of the randomization test and the bootstrap
    out: str = ""  # folder for comparison.json and comparison.md; "" only prints


@dataclass(frozen=True)
class ImportOptions:
    """Options of `convert import`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]  # folder, or Hugging Face hub id
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]  # new folder
    # hub: pretrained encoders, for init_from; torch: an export --to torch, perhaps trained further, becomes a run
    from_: Annotated[Literal["hub", "torch"], tyro.conf.arg(name="from")] = "hub"


@dataclass(frozen=True)
class ExportOptions:
    """Options of `convert export`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]  # folder of a run
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]  # new folder
    to: ExportFormat  # docs/converting.md describes them
    checkpoint: Literal["best", "last"] = "best"  # best: highest validation metric; last: newest


def parse_evaluation(argv: Sequence[str], program: str = "eval.py") -> EvalOptions:
    """Returns the EvalOptions of `argv`; errors as `parse_options`."""
    text = f"Evaluates a model on the judged queries of a catalog.\n\n{program} compare --help: compares two reports."
    options = parse_options(EvalOptions, argv, program=program, description=text)
    if options.depth < 1:
        raise InputError(f"--depth is {options.depth}, expected at least 1")
    if options.only_embed and not options.embeddings:
        raise InputError("--only-embed has no effect without --embeddings; set the folder that stores the embeddings")
    if options.ray and not options.embeddings:
        raise InputError("--ray has no effect without --embeddings; set the folder that stores the embeddings")
    if options.rerank is not None and not 0 <= options.rerank <= options.depth:
        raise InputError(f"--rerank is {options.rerank}, expected 0 (none) to --depth {options.depth}")
    return options


def parse_comparison(argv: Sequence[str], program: str = "eval.py") -> CompareOptions:
    """Returns the CompareOptions of `argv`, the arguments after `compare`; errors as `parse_options`."""
    text = "Tests per query whether one report is better than another."
    return parse_options(CompareOptions, argv, program=f"{program} compare", description=text)


def parse_conversion(argv: Sequence[str], program: str = "convert.py") -> ImportOptions | ExportOptions:
    """Returns the options of `argv`; errors as `parse_options`."""
    if argv[:1] == ["import"]:
        text = "Imports pretrained encoders, or a model that was exported to PyTorch."
        return parse_options(ImportOptions, argv[1:], program=f"{program} import", description=text)
    if argv[:1] == ["export"]:
        text = "Exports the model of a run."
        return parse_options(ExportOptions, argv[1:], program=f"{program} export", description=text)
    if argv[:1] in (["--help"], ["-h"]):
        print(CONVERSIONS.format(program=program))
        raise SystemExit(0)
    command = repr(argv[0]) if argv else "nothing"
    expected = f"{program} import SOURCE OUT, or {program} export RUN OUT --to FORMAT"
    raise InputError(f"found {command}, expected: {expected}")


CONVERSIONS = """\
usage: {program} import SOURCE OUT [--from torch]
       {program} export RUN OUT --to FORMAT

import SOURCE OUT               imports the encoders of a Hugging Face model, for init_from
import SOURCE OUT --from torch  makes a run of an export to torch, perhaps trained further in PyTorch
export RUN OUT --to FORMAT      exports the model of a run to PyTorch, sentence-transformers, ONNX, StableHLO

import --help and export --help list the options; docs/converting.md lists what is exact."""
