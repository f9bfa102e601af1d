"""Terminal output through rich in which text is never markup: names of users contain "[v2]" and ":heart:"."""

from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.table import Column


class LiteralConsole(Console):
    """A rich console that prints text literally, in cells and titles of tables too.

    Markup, emoji codes and highlighting are off; use `rich.text.Text` for styles. The options are those of Console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)


def text_column(text: str, table_column: Column | None = None) -> TextColumn:
    """Returns a column of a progress bar with `text`, such as "{task.description}", filled in literally.

    rich interprets markup there by default, whatever the console is set to.
    """
    return TextColumn(text, markup=False, table_column=table_column)
