"""The miscomputation of jaxlib 0.10.2 on CPU, and the flag that `import make_jax` sets against it."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from make_jax import xla_flags
from make_jax.xla_flags import AFFECTED, FLAG, disable_ynn_fusion

affected = pytest.mark.skipif(version("jaxlib") != AFFECTED, reason=f"jaxlib {AFFECTED} only")
DISABLED = f"{FLAG}="
IMPORT = "import make_jax\n"
# The sum of squares of a product by the identity, of 32,769 rows (i, 0, 0): row i has i squared.
ROWS = """
import jax, jax.numpy as jnp
i = jnp.arange(32769.0)
x = jnp.stack([i, 0 * i, 0 * i], axis=1)
norms = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(x)
print(float(norms[-1]))
"""
RANK_7 = """
import jax, jax.numpy as jnp
ones = jnp.ones((3, 1, 2, 2, 8, 8, 8))
print(float(jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(ones, ones).sum()))
"""
STARTED = "import jax\njax.devices()\nimport make_jax, make_jax.config\nimport make_jax.catalog\n"
RIGHT_ROWS, RIGHT_RANK_7 = 32768.0**2, 3 * 2 * 2 * 8.0**3


def run(code: str, flags: str = "--xla_force_host_platform_device_count=1") -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh Python with XLA's default flags and `flags`."""
    environment = {**os.environ, "XLA_FLAGS": flags}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@affected
def test_jaxlib_0_10_2_miscomputes_and_crashes_without_the_flag() -> None:
    assert float(run(ROWS).stdout) != RIGHT_ROWS
    assert run(RANK_7).returncode < 0  # a signal


def test_import_make_jax_makes_jax_right_on_every_version() -> None:
    both = ROWS + RANK_7
    for code in (IMPORT + both, both.replace("jnp\n", f"jnp\n{IMPORT}", 1)):  # before jax, and after its import
        done = run(code)
        assert done.stdout.split() == [str(RIGHT_ROWS), str(RIGHT_RANK_7)] and not done.stderr, done.stderr


@affected
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, DISABLED),
        ("--xla_a=1", f"--xla_a=1 {DISABLED}"),
        (f"{FLAG}=-individual_dot --xla_a=1", f"{FLAG}=-individual_dot --xla_a=1"),  # as the user set it
    ],
)
def test_the_flag_is_appended_once_and_a_users_value_stays(monkeypatch, before, after) -> None:
    monkeypatch.setattr(xla_flags, "_backends_are_initialized", lambda: False)
    monkeypatch.delenv("XLA_FLAGS") if before is None else monkeypatch.setenv("XLA_FLAGS", before)
    for _ in range(2):
        disable_ynn_fusion()
        assert os.environ["XLA_FLAGS"] == after


@pytest.mark.parametrize("installed", ["0.10.1", "0.11.0", "0.12.0.1", ""])
def test_other_versions_of_jaxlib_keep_their_flags(monkeypatch, installed) -> None:
    monkeypatch.setattr(xla_flags, "_jaxlib_version", lambda: installed)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    disable_ynn_fusion()
    assert os.environ["XLA_FLAGS"] == "--xla_a=1"


@affected
def test_a_file_of_flags_is_left_alone_with_a_warning_unless_it_has_the_flag(monkeypatch, tmp_path: Path) -> None:
    file = tmp_path / "flags.txt"
    file.write_text("--xla_a=1\n")
    monkeypatch.setenv("XLA_FLAGS", str(file))
    with pytest.warns(RuntimeWarning, match=rf"add the line {DISABLED} to {file}"):
        disable_ynn_fusion()
    file.write_text(f"--xla_a=1\n{DISABLED}\n")
    disable_ynn_fusion()
    assert os.environ["XLA_FLAGS"] == str(file)


@affected
def test_one_warning_when_jax_has_already_started() -> None:
    done = run(STARTED)
    assert done.returncode == 0 and done.stderr.count("RuntimeWarning") == 1
    assert f"jax has already started: import make_jax before, or set XLA_FLAGS={DISABLED}" in done.stderr
    assert not run(STARTED, DISABLED).stderr


@affected
def test_started_processes_inherit_the_flag() -> None:
    child = "import os; print(os.environ['XLA_FLAGS'])"
    code = f"{IMPORT}import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    assert run(code, "--xla_a=1").stdout.strip() == f"--xla_a=1 {DISABLED}"
