"""Test environment: eight simulated CPU devices, strict jax, types checked at run time, fixed seeds."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import numpy as np
import pytest

from tests.object_store_servers import bucket, store, store_servers  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parent.parent

# A shell starts background commands with Ctrl-C ignored, which child processes would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before jax is imported. Child processes of tests inherit all of it.
os.environ["JAX_PLATFORMS"] = "cpu"
# Simulated devices wait for each other. On a busy machine the 40 s after which XLA aborts can be too short.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        # Tests compile much and compute little: unoptimized programs take half the time.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
).strip()
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that uses the network fails at once
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Eight simulated devices on two cores compile slowly, so compiled programs are cached between runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # implicit [B, D] + [D] is an error

# Property tests draw the same examples in each run, without a time limit.
hypothesis.settings.register_profile("make_jax", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("make_jax")

# All annotations of make_jax, shapes included, are checked at each call.
jaxtyping.install_import_hook("make_jax", "beartype.beartype")

import make_jax  # noqa: E402, F401 - sets its XLA flag before a test module starts jax


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seeds the global generators of Python and NumPy; jax keys are explicit."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Makes implicit float32 + bfloat16 an error.

    For tests of our own formulas: Flax's norms in bfloat16 and Optax's schedules rely on promotion.
    """
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module")
def few_fit_steps() -> Iterator[None]:
    """Fits keyword heads in 20 steps, for speed: for tests that do not depend on their quality."""
    from make_jax.training import keyword_heads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyword_heads, "STEPS", 20)
        yield
