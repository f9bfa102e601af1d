"""Command lines become typed options: `train.py` a Config, `eval.py` EvalOptions, and so on. Imports no jax."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from make_jax.config import REMOVED, RENAMED, Config, check, renamed
from make_jax.errors import InputError

Options = TypeVar("Options")
_OLD_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")

_RECIPE_HELP = (
    "--config FILE.py is read first: a recipe, that is a Python file which defines `config`. "
    "Every option below changes one of its settings; --profile 10:15 is short for --train.profile. "
    "--dry-run [--device h200|h100|v5e|v5p|cpu --count N] prints what a step takes there, and runs nothing."
)


@dataclass(frozen=True)
class EvalData:
    """What is evaluated on."""

    catalog: str = ""  # folder or .zip in the catalog format; "": what the run was trained on, else the packaged one


@dataclass(frozen=True)
class EvalOptions:
    """What `eval.py` is asked to do."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]  # run, other model's folder, bm25
    data: EvalData = field(default_factory=EvalData)
    split: Literal["train", "val", "test"] = "test"  # whose queries are asked
    pool: Literal["catalog", "split", "all", "judged"] = "catalog"  # what they search; catalog: as catalog.json says
    out: str = ""  # folder that receives the report; "": RUN/eval/<catalog>-<split>, or runs/eval/<model>/...
    checkpoint: Literal["best", "last"] = "best"  # of a run; best: highest validation figure; last: newest
    embeddings: str = ""  # folder that receives the products' vectors, for those larger than memory; "" keeps none
    only_embed: bool = False  # ends when all vectors are there: for processes that help one which evaluates
    depth: int = 1000  # products kept a query in the run files
    rerank: int | None = None  # best products a query that the matching encoder orders; None: 50 if the run trained one


@dataclass(frozen=True)
class CompareOptions:
    """What `eval.py compare` is asked to do."""

    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="REPORT-A")]  # folder that eval.py wrote
    b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="REPORT-B")]  # another one; the two may be the same
    system_a: str = ""  # of report A; "" is its main system
    system_b: str = ""  # of report B; "" is its main system
    seed: int = 0  # of the random signs and resamples
    out: str = ""  # folder that receives comparison.json and comparison.md; "" only prints


@dataclass(frozen=True)
class ImportOptions:
    """What `convert.py import` is asked to do."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]  # folder, or id of the HF hub
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]  # folder that does not exist yet
    # hub: public encoders become ours; torch: what export --to torch wrote, or PyTorch saved since, becomes a run
    from_: Annotated[Literal["hub", "torch"], tyro.conf.arg(name="from")] = "hub"


Form = Literal["torch", "sentence-transformers", "onnx", "onnx-int8", "stablehlo"]


@dataclass(frozen=True)
class ExportOptions:
    """What `convert.py export` is asked to do."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]  # folder of a run
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]  # folder that does not exist yet
    to: Form  # docs/converting.md tells what each is
    checkpoint: Literal["best", "last"] = "best"  # best: highest validation figure; last: newest


@dataclass(frozen=True)
class DryRun:
    """Devices that a step is reckoned for instead of being run."""

    device: str = ""  # a name of planning/hardware.py; "" is what this machine has
    count: int = 0  # devices; 0 is as many as this machine has, or one of a device that is named


def take_dry_run(argv: Sequence[str]) -> tuple[DryRun | None, list[str]]:
    """Returns what `--dry-run [--device NAME] [--count N]` asks for, None without it, and the other words of `argv`.

    Raises InputError for a count that is no whole number from 1 on, and for one of the two without `--dry-run`.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    before.add_argument("--dry-run", action="store_true")
    before.add_argument("--device")
    before.add_argument("--count")
    try:
        known, rest = before.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name}: {error.message}, as in --dry-run --device v5e --count 256") from None
    if not known.dry_run:
        for name in ("device", "count"):
            if getattr(known, name) is not None:
                raise InputError(f"--{name} says what --dry-run is to reckon for; add --dry-run")
        return None, rest
    count = known.count or "0"
    if known.count is not None and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise InputError(f"--count is {known.count!r}, expected how many devices, a whole number from 1 on")
    return DryRun(known.device or "", int(count)), rest


def parse(argv: Sequence[str], description: str) -> Config:
    """Returns the checked Config that `argv` (without the program's name) asks for.

    `--config FILE.py` names a recipe whose `config` is the start; without it the defaults are. Each setting has an
    option, `--data.catalog PATH`, `--optim.learning-rate 3e-4`; `--profile` is short for `--train.profile`. `--help`
    prints them all and exits with 0. Raises InputError for a broken recipe, an unknown option (with the nearest name),
    a wrong value, contradicting settings.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    before.add_argument("--config")
    before.add_argument("--profile")
    try:
        known, rest = before.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        expected = "steps such as 10:15" if error.argument_name == "--profile" else "a recipe such as configs/demo.py"
        raise InputError(f"{error.argument_name}: {error.message}, {expected}") from None
    _refuse_renamed(rest)
    rest += [] if known.profile is None else ["--train.profile", known.profile]
    default = Config() if known.config is None else load_recipe(known.config)
    config = _parse(
        Config,
        default,
        rest,
        f"{description}\n\n{_RECIPE_HELP}",
        extra=("--config", "--profile", "--dry-run", "--device", "--count"),
    )
    check(config)
    return config


def _refuse_renamed(argv: Sequence[str]) -> None:
    """Raises InputError for an option, or a value of one, that was renamed or removed, with what replaces it."""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            path = flag[2:].replace("-", "_").replace(".no_", ".")
            if gone := renamed(path, value if equals else following):
                raise InputError(gone)


def parse_evaluation(argv: Sequence[str], description: str) -> EvalOptions:
    """Returns the EvalOptions that `argv` (without the program's name) asks for; errors as `parse`."""
    options = _parse(EvalOptions, None, argv, description)
    if options.depth < 1:
        raise InputError(f"--depth is {options.depth}, expected at least 1")
    if options.only_embed and not options.embeddings:
        raise InputError("--only-embed says nothing without --embeddings; name the folder that receives the vectors")
    if options.rerank is not None and not 0 <= options.rerank <= options.depth:
        raise InputError(f"--rerank is {options.rerank}, expected 0 (none) to --depth {options.depth}")
    return options


def parse_comparison(argv: Sequence[str], description: str) -> CompareOptions:
    """Returns the CompareOptions that `argv` (what follows `compare`) asks for; errors as `parse`."""
    return _parse(CompareOptions, None, argv, description, command="compare")


def parse_conversion(argv: Sequence[str], description: str) -> ImportOptions | ExportOptions:
    """Returns the options that `argv` (without the program's name) asks for; errors as `parse`."""
    if argv[:1] == ["import"]:
        return _parse(ImportOptions, None, argv[1:], description, command="import")
    if argv[:1] == ["export"]:
        return _parse(ExportOptions, None, argv[1:], description, command="export")
    if argv[:1] in (["--help"], ["-h"]):
        print(description)
        raise SystemExit(0)
    found = repr(argv[0]) if argv else "nothing"
    raise InputError(f"found {found}, expected: convert.py import SOURCE OUT, or convert.py export RUN OUT --to FORM")


def load_recipe(path: str) -> Config:
    """Returns the `config` that the Python file at `path` defines.

    The file is executed, so it is only ever one that the user names; a run's own settings are read from JSON. Raises
    InputError with file and line when the file is absent, raises, or defines no Config.
    """
    if not Path(path).is_file():
        raise InputError(f"--config: no recipe {path}, expected a Python file that defines `config`")
    try:
        names = runpy.run_path(path)
    except (Exception, SystemExit) as error:  # a recipe is the user's code and may raise anything
        if (old := _OLD_KEYWORD.search(str(error))) and (gone := _renamed_keyword(old[1])):
            raise InputError(f"{_line_of(error, path)}: {gone}") from None
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(f"{_line_of(error, path)}: {type(error).__name__}: {message}") from None
    config = names.get("config")
    if not isinstance(config, Config):
        found = f"`config` is of type {type(config).__name__}" if "config" in names else "`config` is not defined"
        raise InputError(f"{path}: {found}, expected `config = Config(...)` of make_jax.config")
    return config


def _renamed_keyword(name: str) -> str | None:
    """What became of a keyword argument of a dataclass of settings; None where it never was one."""
    old = next((path for path in (*RENAMED, *REMOVED) if path.rpartition(".")[2] == name), None)
    return None if old is None else renamed(old)


def _line_of(error: BaseException, path: str) -> str:
    """File and line of the recipe where `error` arose: the innermost frame of that file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path


def _parse(
    kind: type[Options],
    default: Options | None,
    argv: Sequence[str],
    description: str,
    extra: tuple[str, ...] = (),
    command: str = "",
) -> Options:
    """Returns `kind` as tyro reads it from `argv`; tyro's boxes on stderr become one InputError line."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            options, unknown = tyro.cli(
                kind,
                prog=f"{Path(sys.argv[0]).name} {command}".strip(),
                description=description,
                args=list(argv),
                return_unknown_args=True,
                **given,
            )
    except SystemExit as leaving:
        if not leaving.code:  # --help
            raise
        raise InputError(_first_sentence(captured.getvalue())) from None
    if unknown:
        raise InputError(_unknown(unknown, [*_flags(kind), *extra, "--help"]))
    return options


def _unknown(words: Sequence[str], flags: Sequence[str]) -> str:
    """What to say of `words` that no option took."""
    for word in words:
        if word.startswith("-"):
            flag = word.split("=")[0].replace("_", "-")
            nearest = difflib.get_close_matches(flag, flags, n=1, cutoff=0.0)[0]
            return f"unknown option {word.split('=')[0]}; did you mean {nearest}? (--help lists all)"
    return f"unexpected word {words[0]!r}; an option starts with --, and --help lists all"


def _flags(kind: Any, prefix: str = "--") -> Iterator[str]:
    """Every option of a dataclass, written as on the command line."""
    for each in dataclasses.fields(kind):
        name = each.name.rstrip("_").replace("_", "-")
        if dataclasses.is_dataclass(each.type):
            yield from _flags(each.type, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
            if each.type is bool:
                yield f"{prefix}no-{name}"


def _first_sentence(box: str) -> str:
    """The message inside one of tyro's boxes, without frame, wrapping and advice."""
    message: list[str] = []
    for line in box.splitlines():
        text = line.strip("│ ")
        if text.startswith("╭"):
            continue
        if text.startswith(("─", "╰")):
            break
        message.append(text)
    return re.sub(r"\s+", " ", " ".join(message)).strip() or "wrong command line; --help lists the options"
