from dataclasses import replace

import pytest

from make_jax.errors import InputError
from make_jax.interop import sentence_transformers_export as tower
from tests.interop.exports import MODELS, TEXTS, agree, ours, random_params, served


@pytest.mark.parametrize("setting", ["enrichment", "keyword_dims"])
def test_a_model_whose_queries_take_keywords_is_refused(tmp_path, setting):
    model = replace(MODELS["bare"], **{setting: 4 if setting == "keyword_dims" else True})
    of = served(model)
    with pytest.raises(InputError, match=rf"model\.{setting} is on, and sentence-transformers has no module"):
        tower.write(tmp_path, random_params(of), of)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_query_tower_gives_our_query_vectors(tmp_path, pooling, normalise):
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    of = served(replace(MODELS["bare"], pooling=pooling, l2_normalize=normalise))
    params = random_params(of)
    tower.write(tmp_path, params, of)
    found = library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, show_progress_bar=False)
    agree(ours(of, params)[0], found)
