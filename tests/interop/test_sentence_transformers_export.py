from dataclasses import replace

import pytest

from make_jax.errors import InputError
from make_jax.interop import sentence_transformers_export as tower
from tests.interop.exports import MODELS, TEXTS, assert_close, flax_outputs, random_params, tiny_bundle


@pytest.mark.parametrize("setting", ["enrichment", "keyword_dims"])
def test_a_model_with_keywords_in_queries_is_rejected(tmp_path, setting):
    model = replace(MODELS["bare"], **{setting: 4 if setting == "keyword_dims" else True})
    bundle = tiny_bundle(model)
    with pytest.raises(InputError, match=rf"model\.{setting} is on, and sentence-transformers has no module"):
        tower.write(tmp_path, random_params(bundle), bundle)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("l2_normalize", [True, False])
def test_the_query_encoder_equals_the_flax_module(tmp_path, pooling, l2_normalize):
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    bundle = tiny_bundle(replace(MODELS["bare"], pooling=pooling, l2_normalize=l2_normalize))
    params = random_params(bundle)
    tower.write(tmp_path, params, bundle)
    found = library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, show_progress_bar=False)
    assert_close(flax_outputs(bundle, params)[0], found)
