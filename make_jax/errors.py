"""Exceptions that end a program early, and their exit codes: 2 for invalid input, 0 for SIGTERM."""

import difflib
import io
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class InputError(Exception):
    """Invalid input of the user: a file, a line, a setting.

    The message is one line: what was found, what was expected and which setting or file to change. Programs exit with
    code 2 and print it without a traceback (`exit_cleanly`).
    """


class Terminated(Exception):  # noqa: N818 - not an error
    """SIGTERM ended the program after everything worth keeping was saved.

    The message is one line that lists what was saved. Programs print it and exit with code 0.
    """


def check_lists(**arguments: object) -> None:
    """Raises InputError for an argument, given by its name, that is one text or one file instead of a list of them.

    A string is a sequence of strings, and bytes are one of integers: without the check each letter would be a text.
    """
    for name, value in arguments.items():
        if isinstance(value, str | bytes | bytearray | memoryview):
            kind = "text" if isinstance(value, str) else "file"
            raise InputError(f"{name} is one {kind}, expected a list of them; put it into brackets: [{name}]")


def lookup(table: Mapping[str, Entry], name: str, setting: str) -> Entry:
    """Returns the entry `name` of a table that a setting selects from.

    Raises InputError with the setting, the names of the table and the nearest of them, if there is no such entry.
    """
    if name not in table:
        nearest = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
        raise InputError(
            f"{setting} is {name!r}, expected one of {', '.join(sorted(table))}; did you mean {nearest!r}?"
        )
    return table[name]


def exit_cleanly(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits the process with its code, or after an error of `print_error` with that code.

    Invalid input, and OSError such as a full disk or an unreadable file, exit with 2; KeyboardInterrupt with 130,
    Terminated with 0. None of them prints a traceback. `signals.py` handles signals before they raise anything.
    """
    _escape_unencodable()
    try:
        code = main()
    except (InputError, Terminated, KeyboardInterrupt, OSError) as error:
        code = print_error(error)
    sys.stdout.flush()
    sys.exit(code)


def _escape_unencodable() -> None:
    """Makes both output streams print characters that their encoding lacks as escapes, "\\u7ea2".

    The encoding may be ASCII or Latin-1, by the locale or PYTHONIOENCODING, and UTF-8 lacks the bytes of file names
    that are not UTF-8. Python does so for stderr only.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_error(error: BaseException) -> int | None:
    """Prints an expected error on stderr as one line and returns its exit code; None, and no output, for a bug."""
    if isinstance(error, KeyboardInterrupt):
        print(str(error) or "interrupted", file=sys.stderr)
        return 130
    if isinstance(error, Terminated):
        print(error, file=sys.stderr)
        return 0
    if isinstance(error, InputError):
        print(f"error: {error}", file=sys.stderr)
        return 2
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    return None
