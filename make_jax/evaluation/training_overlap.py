"""Notes on how much of the products and queries of an evaluation the model was trained on."""

from make_jax.catalog.reader import Catalog
from make_jax.evaluation.search_pool import SearchPool
from make_jax.retrieval.embed import EmbeddingModel
from make_jax.runs.training_data import TrainingData

_SHOWN = 12  # characters of a digest


def training_notes(model: EmbeddingModel | None, catalog: Catalog, search_pool: SearchPool) -> list[str]:
    """States how many of the searched products and judged queries the model was trained on, or that it is unknown.

    Always on another catalog than that of the training; on the same one only if training products are searched. BM25
    (None) is not trained. A model without a `training_data` attribute may have been trained on anything.
    """
    if model is None:
        return []
    products, queries = search_pool.products, search_pool.judgements.queries
    data = getattr(model, "training_data", None)
    in_train = sum(product.split == "train" for product in products)
    known = data.catalog_digest if isinstance(data, TrainingData) else None
    if not isinstance(data, TrainingData) or known is None:
        note = f"{in_train:,} of the products searched are of the split train; whether this model was trained on them"
        return [f"{note} is not recorded."] if in_train else []
    if known == catalog.digest:
        trained = in_train if data.record is None else data.record.overlap(catalog, products, queries).products
        note = f"{trained:,} of the {len(products):,} products searched are training products of this model, which "
        return [f"{note}flatters it."] if trained else []
    note = f"This catalog is not the one that the model was trained on (digests {catalog.digest[:_SHOWN]} and "
    note += f"{known[:_SHOWN]}). "
    if data.record is None:
        return [f"{note}How much of it the model was trained on is unknown: there is no record of the training data."]
    found = data.record.overlap(catalog, products, queries)
    more = f", {found.same_id:,} more have the id of one" if found.same_id else ""
    note += f"Of the {len(products):,} products searched, {found.products:,} are training products of the model{more}; "
    note += f"{found.queries:,} of the {len(queries):,} judged queries have the text of a training click."
    flatters = " This flatters the model." if found.products or found.same_id else ""
    earlier = "" if data.record.complete else " What the weights that it started from were trained on is not recorded."
    return [note + flatters + earlier]
