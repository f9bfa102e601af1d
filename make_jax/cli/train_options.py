"""Options of `train`: a recipe, every setting of `make_jax.config`, and the dry run. Imports no jax."""

import argparse
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NoReturn

from make_jax.cli.parsing import parse_options
from make_jax.cli.recipes import find_recipe, load_recipe, missing_recipe, recipes
from make_jax.config import Config, check
from make_jax.config_renames import renamed
from make_jax.errors import InputError

COMMON = (  # settings that --help lists; --help-all lists all
    *("run", "data.catalog", "data.queries", "data.workers"),
    *("train.steps", "train.batch_size", "train.micro_batch_size", "train.seed", "train.init_from", "train.fsdp"),
    *("train.eval_every", "train.save_every"),
    *("optim.learning_rate", "optim.warmup_steps", "optim.weight_decay"),
    *("model.embedding_dim", "model.keyword_dims", "model.adaptation.modalities", "model.adaptation.weights"),
    *("model.query.init_from", "model.title.init_from", "model.image.init_from"),
    *("model.dtype", "objectives.loss_type", "objectives.implementation"),
)
_EXTRA = ("--config", "--profile", "--dry-run", "--device", "--count", "--help-all")
_WIDTH, _INDENT = 100, 30  # columns


@dataclass(frozen=True)
class DryRunOptions:
    """Devices for which `--dry-run` plans a step."""

    device: str = ""  # a name in planning/hardware.py; "" is the device of this machine
    count: int = 0  # devices; 0: as many as this machine has, or 1 of a named device


def split_dry_run(argv: Sequence[str]) -> tuple[DryRunOptions | None, list[str]]:
    """Returns the options of `--dry-run [--device NAME] [--count N]`, None without it, and the remaining arguments.

    InputError for a count below 1, and for `--device` or `--count` without `--dry-run`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--device")
    parser.add_argument("--count")
    try:
        known, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name}: {error.message}, as in --dry-run --device v5e --count 256") from None
    if not known.dry_run:
        for name in ("device", "count"):
            if getattr(known, name) is not None:
                raise InputError(f"--{name} is an option of --dry-run; add --dry-run")
        return None, rest
    count = known.count or "0"
    if known.count is not None and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise InputError(f"--count is {known.count!r}, expected a number of devices, an integer of at least 1")
    return DryRunOptions(known.device or "", int(count)), rest


def parse_settings(argv: Sequence[str], program: str = "train.py") -> Config:
    """Returns the checked Config of `argv`.

    `--config RECIPE` sets the defaults of all settings; without it they are those of `Config()`. Each setting is an
    option, `--data.catalog PATH`, `--optim.learning-rate 3e-4`; `--profile` is short for `--train.profile`. `--help`
    prints the common ones, `--help-all` all of them; both exit with 0.

    Raises:
        InputError: broken recipe, unknown option (with the nearest name), wrong value, conflicting settings.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", nargs="?", const="")
    parser.add_argument("--profile")
    try:
        known, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name}: {error.message}, steps such as 10:15") from None
    if known.config == "":
        raise missing_recipe()
    _refuse_renamed(rest)
    rest += [] if known.profile is None else ["--train.profile", known.profile]
    default = Config() if known.config is None else load_recipe(find_recipe(known.config))
    if {"--help", "-h"} & {*rest}:
        _print_help(default, program)
    rest = ["--help" if word == "--help-all" else word for word in rest]
    text = "Trains a model on the clicks of a catalog."
    config = parse_options(Config, rest, program=program, description=text, default=default, extra=_EXTRA)
    check(config)
    return config


def _refuse_renamed(argv: Sequence[str]) -> None:
    """Raises InputError for an option, or a value of one, that was renamed or removed, with its replacement."""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            path = flag[2:].replace("-", "_").replace(".no_", ".")
            if message := renamed(path, value if equals else following):
                raise InputError(message)


def _print_help(config: Config, program: str) -> NoReturn:
    """Prints the common options with the values of `config` and exits."""
    names = [f"{name:<20}{line}" for name, line in recipes().items()]
    rows = [
        ("--config RECIPE", ["defaults of all settings: a Python file, or one of", *names]),
        ("--dry-run", ["print memory, FLOPs and time of a step, without training; the devices:"]),
        ("  --device NAME --count N", ["h200, h100, v5e, v5p or cpu; default: this machine"]),
        ("--profile FIRST:LAST", ["trace these steps into RUN/profile, such as 10:15"]),
        ("--help, --help-all", ["print this; print all settings"]),
    ]
    rows += [(f"--{path.replace('_', '-')}", [_comment(path, config)]) for path in COMMON]
    print(f"usage: {program} [--config RECIPE] [--SECTION.SETTING VALUE ...]\n")
    print("Trains a model on the clicks of a catalog.\n")
    for option, lines in rows:
        wrapped = [part for line in lines for part in textwrap.wrap(line, _WIDTH - _INDENT)]
        for name, part in itertools.zip_longest([option], wrapped, fillvalue=""):
            print(f"{name:<{_INDENT}}{part}")
    raise SystemExit(0)


def _comment(path: str, config: Config) -> str:
    """Returns the comment of a setting in `make_jax/config.py`, with its value in `config`."""
    parent, _, name = path.rpartition(".")
    section = type(attrgetter(parent)(config) if parent else config)
    comments = dict(field_comments(section))
    value = attrgetter(path)(config)
    return f"{comments[name]} (default: {value if value != '' else repr(value)})"


def field_comments(section: type) -> Iterator[tuple[str, str]]:
    """Yields the name and the comment of each field of a dataclass, from its source."""
    for line in inspect.getsource(section).splitlines():
        if match := re.match(r" {4}(\w+): .*?  # (.*)$", line):
            yield match[1], match[2]
