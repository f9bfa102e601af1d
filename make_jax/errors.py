"""Why a program ends early, and the one place that turns it into an exit code: 2 for bad input, 0 for SIGTERM."""

import signal
import sys
from collections.abc import Callable
from types import FrameType


class InputError(Exception):
    """Something the user gave is wrong: a file, a line, a setting.

    The message is one line that says what was found, what was expected and which setting or file to change.
    Programs end with exit code 2 and print it without a traceback (see `exit_cleanly`).
    """


class Terminated(Exception):  # noqa: N818 - nothing went wrong
    """SIGTERM asked the program to end, and it has kept what there was to keep.

    The message is one line that says what was kept. Programs print it and end with exit code 0.
    """


def end_on_sigterm() -> None:
    """From now on SIGTERM raises Terminated: for a program that has nothing to save yet."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Terminated("stopped by SIGTERM; there was nothing to save")

    signal.signal(signal.SIGTERM, end)


def exit_cleanly(main: Callable[[], int | None]) -> None:
    """Runs `main` and leaves the process: its code, or 2 and one line on stderr for a bad input.

    Ctrl-C leaves with 130 and no traceback, SIGTERM with 0 where `main` minds it (see `Terminated`); a full disk or an
    unreadable file (OSError) is a bad input too.
    """
    try:
        code = main()
    except (InputError, Terminated, KeyboardInterrupt, OSError) as error:
        code = tell(error)
    sys.stdout.flush()
    sys.exit(code)


def tell(error: BaseException) -> int | None:
    """Prints on stderr what `exit_cleanly` says of an error and returns its exit code; None for one that is a bug."""
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
