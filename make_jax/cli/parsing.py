"""Command line arguments become a dataclass through tyro; every mistake is one InputError line."""

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from make_jax.errors import InputError

Options = TypeVar("Options")


def parse_options(
    section: type[Options],
    argv: Sequence[str],
    *,
    program: str,
    description: str,
    default: Options | None = None,
    extra: Sequence[str] = (),
) -> Options:
    """Returns the dataclass `section` with the values of `argv`; `--help` prints all options and exits with 0.

    Args:
        section: the dataclass; nested ones are dotted options, such as `--data.catalog`.
        argv: arguments without the program's name.
        program: name in the usage line.
        description: first lines of the help.
        default: values of options that are absent; None uses the defaults of `section`.
        extra: further options, which the caller handles, as suggestions for a misspelled one.

    Raises:
        InputError: unknown option (with the nearest name), wrong or missing value.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    words = ["--help" if word == "--help-all" else word for word in argv]  # train.py alone has more than a screen
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            options, unknown = tyro.cli(
                section, prog=program, description=description, args=words, return_unknown_args=True, **given
            )
    except SystemExit as leaving:
        if not leaving.code:  # --help
            raise
        raise InputError(_first_sentence(captured.getvalue())) from None
    if unknown:
        raise InputError(_unknown(unknown, [*flags(section), *extra, "--help"]))
    return options


def flags(section: Any, prefix: str = "--") -> Iterator[str]:
    """Yields every option of a dataclass as written on the command line."""
    for each in dataclasses.fields(section):
        name = each.name.rstrip("_").replace("_", "-")
        if dataclasses.is_dataclass(each.type):
            yield from flags(each.type, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
            if each.type is bool:
                yield f"{prefix}no-{name}"


def _unknown(words: Sequence[str], known: Sequence[str]) -> str:
    """Returns the message for `words` that no option accepted."""
    for word in words:
        if word.startswith("-"):
            flag = word.split("=")[0].replace("_", "-")
            nearest = difflib.get_close_matches(flag, known, n=1, cutoff=0.0)[0]
            return f"unknown option {word.split('=')[0]}; did you mean {nearest}? (--help lists the options)"
    return f"unexpected word {words[0]!r}; an option starts with --, and --help lists the options"


def _first_sentence(box: str) -> str:
    """Returns the message in one of tyro's boxes, without frame, line breaks and advice."""
    message: list[str] = []
    for line in box.splitlines():
        text = line.strip("│ ")
        if text.startswith("╭"):
            continue
        if text.startswith(("─", "╰")):
            break
        message.append(text)
    return re.sub(r"\s+", " ", " ".join(message)).strip() or "wrong command line; --help lists the options"
