"""Progress on a terminal and on a pipe."""

import io

from make_jax.console import LiteralConsole, StageBars


def test_progress_on_a_pipe_is_a_line_at_the_interval(capsys):
    output = io.StringIO()
    with StageBars(LiteralConsole(file=output), line_seconds=0.0) as bars:
        bars.show("embedding", 500, 42_203)
        bars.show("embedding", 42_500, 42_203)
    assert capsys.readouterr().err == "embedding: 500 of 42,203\nembedding: 42,203 of 42,203\n"
    with StageBars(LiteralConsole(file=output)) as bars:
        bars.show("embedding", 500, 42_203)
        bars.show("embedding", 42_203, 42_203)
    assert capsys.readouterr().err == "" and output.getvalue().strip() == ""


def test_progress_on_a_terminal_is_a_bar_for_each_stage(capsys):
    output = io.StringIO()
    with StageBars(LiteralConsole(file=output, force_terminal=True, width=80), line_seconds=0.0) as bars:
        bars.show("embedding [v2]", 5, 10)
        bars.show("thumbnails", 3, 3)
    assert "embedding [v2]" in output.getvalue() and "5/10" in output.getvalue() and "3/3" in output.getvalue()
    assert capsys.readouterr().err == ""
