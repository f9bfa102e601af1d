"""What every test runs under: eight pretended devices, strict jax, types checked at call time, fixed seeds."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before jax is imported. Child processes of tests inherit all of it.
os.environ["JAX_PLATFORMS"] = "cpu"
# Pretended devices wait for each other. On a busy machine 40 s, where XLA ends the process, can be too short.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        # Tests compile much and compute little: unoptimised programs take half the time.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
).strip()
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that wants the network fails at once instead of waiting
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Eight pretended devices on two cores compile slowly, so compiled programs are kept between runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # [B, D] + [D] is an error, not a guess

# Property tests draw the same examples in each run, and take the time that they take.
hypothesis.settings.register_profile("make_jax", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("make_jax")

# Every annotation of make_jax, shapes included, is checked at each call.
jaxtyping.install_import_hook("make_jax", "beartype.beartype")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Python's and NumPy's global generators start alike in every test; jax keys are explicit anyway."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """float32 + bfloat16 is an error, not a guess.

    For tests of our own formulas: Flax's norms in bfloat16 and Optax's schedules rely on promotion.
    """
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield
