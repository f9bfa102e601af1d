"""Measures one run of the study: nDCG@10 of every judged query of validation and test."""

from pathlib import Path
from typing import Any

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Split
from make_jax.evaluation.metrics import judge, score_ranking
from make_jax.evaluation.slices import query_slices
from make_jax.retrieval.embed import embed_products, embed_queries
from make_jax.retrieval.retriever import Retriever
from make_jax.retrieval.top_k import top_k
from make_jax.runs.provenance import metadata
from make_jax.runs.run_folder import load_trained_model

METRIC = "nDCG@10"
SLICES = {
    "attr English": "kind:attr lang:en",
    "held-out": "heldout:yes",
    "attr Chinese": "kind:attr lang:zh",
    "all": "all",
}


def measure(run: Path, path: str, seed: int) -> dict[str, Any]:
    """Returns the values of all queries in the order of the catalog, and the members of each slice."""
    catalog = Catalog.load(path)
    trained = load_trained_model(run, "last")
    retriever, meta = Retriever.from_trained_model(trained), trained.metadata
    seconds = round(meta["seconds"], 1)
    return {
        "about": metadata(catalog, seed=seed, run={"steps": meta["position"], "training_seconds": seconds}),
        "val": _split(retriever, catalog, "val"),
        "test": _split(retriever, catalog, "test"),
    }


def _split(retriever: Retriever, catalog: Catalog, split: Split) -> dict[str, Any]:
    products = catalog.split_products(split)
    judged = judge(catalog.split_queries(split), [product.id for product in products], catalog.info)
    embeddings = embed_products(retriever, catalog, products, retriever.modalities)
    queries = embed_queries(retriever, judged.queries)
    ranking = top_k(queries, embeddings.vectors, 100, absent=embeddings.absent)
    values = score_ranking(ranking, judged, [METRIC])[METRIC]
    masks = query_slices(judged.queries, products, catalog.clicks, catalog.info.relevant)
    return {
        "values": [round(float(value), 4) for value in values],
        "members": {name: mask.nonzero()[0].tolist() for name, mask in masks.items() if name in SLICES.values()},
        "title_weight": round(float(embeddings.weights[:, 0].mean()), 4),
    }
