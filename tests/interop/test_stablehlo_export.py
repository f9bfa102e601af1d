import subprocess
import sys

import numpy as np
import pytest

from make_jax.interop import stablehlo_export
from tests.interop.exports import IMAGES, MODELS, TEXTS, TITLES, assert_close, flax_outputs, random_params, tiny_bundle

pytest.importorskip("flatbuffers", reason="needs flatbuffers: pip install -e '.[stablehlo]'")
RELOAD = """
import sys
import numpy as np
from jax import export

folder, out = sys.argv[1:]
for name in ("query", "product"):
    function = export.deserialize(bytearray(open(f"{folder}/{name}.stablehlo", "rb").read()))
    inputs = np.load(f"{folder}/{name}.npz")
    found = function.call(*(inputs[key] for key in inputs))
    np.save(f"{out}/{name}.npy", found if name == "query" else found[0])
assert not any(module.startswith("make_jax") for module in sys.modules)
"""


@pytest.mark.parametrize("name", ["fashion", "bare"])
def test_artifacts_load_without_make_jax_and_equal_the_flax_module_for_any_batch(tmp_path, name):
    bundle = tiny_bundle(MODELS[name])
    params = random_params(bundle)
    stablehlo_export.write(tmp_path, params, bundle)
    np.savez(tmp_path / "query.npz", **bundle.queries(TEXTS))
    products = bundle.products(TITLES, IMAGES)
    order = ("title_tokens", "title_mask", "image", "has_title", "has_image")
    np.savez(tmp_path / "product.npz", **{key: products[key] for key in order})
    subprocess.run([sys.executable, "-c", RELOAD, tmp_path, tmp_path], check=True, cwd=tmp_path)
    vectors, product_vectors, _ = flax_outputs(bundle, params)
    assert_close(vectors, np.load(tmp_path / "query.npy"))
    assert_close(product_vectors, np.load(tmp_path / "product.npy"))
