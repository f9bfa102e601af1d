"""What several tests of the inputs share."""

import pytest

from make_jax.catalog.build import build
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.inputs.tokenizer import train_wordpiece
from tests.inputs.shop import Shop
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    path = write_catalog(folder / "tiny", products=40)
    catalog = Catalog.load(path)
    texts = [product.title for product in catalog.split_products("train")]
    texts += [click.query for click in catalog.clicks]
    tokenizer = train_wordpiece(texts, 120)
    return Shop(catalog, build(catalog, str(folder / "cache")), tokenizer, mine_keywords(catalog, min_products=2), path)
