"""Peer of `http_latency.py`: sentence-transformers MiniLM and FAISS flat behind FastAPI and uvicorn, with facets.

    python benchmarks/search/minilm_server.py MODEL CATALOG.zip FOLDER --backend onnx --threads 1 --workers 1

`POST /v1/search` answers the search request of make_jax's page (q, filter, limit, offset, facets) with what the page
shows of a product: id, title, attributes, score, address of the picture; the total; and the counts of all attributes
over the products that the filter keeps, all products without one, as the page does.

* Titles are encoded once and kept in FOLDER. A query is encoded alone, in a thread of Starlette's pool.
* The filter is a list of lists of `"attribute" = "value"`; kept rows are a mask over value codes. FAISS searches
  with an IDSelectorBitmap of it.
* Facets: `numpy.bincount` of the codes of the kept rows. JSON by orjson, HTTP by httptools on uvloop.
* Without: BM25, spelling correction, scores of parts, keywords, limits, request ids, logs.
"""

import argparse
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

SETTINGS = "MINILM_SERVER"  # environment variable with the settings, for uvicorn's workers
_EQUAL = re.compile(r'"((?:[^"\\]|\\.)*)" = "((?:[^"\\]|\\.)*)"')


class SearchBody(BaseModel):
    """The members of the page's request that are used here."""

    q: str
    filter: list[list[str]] = []
    facets: list[str] = []
    limit: int = 20
    offset: int = 0


class Attribute:
    """Pairs of a row and the code of a value."""

    def __init__(self, values: list[Any]) -> None:
        positions: dict[str, int] = {}
        pairs = [
            (row, positions.setdefault(one, len(positions)))
            for row, value in enumerate(values)
            if value not in (None, "", [])
            for one in dict.fromkeys(value if isinstance(value, list) else [value])
        ]
        self.texts = list(positions)
        self.positions = positions
        self.rows, self.codes = np.array(pairs, np.int32).reshape(-1, 2).T.copy()

    def counts(self, kept: np.ndarray) -> dict[str, int]:
        """The number of kept rows of each value, descending."""
        counts = np.bincount(self.codes[kept[self.rows]], minlength=len(self.texts))
        order = np.argsort(-counts, kind="stable")
        return {self.texts[code]: int(counts[code]) for code in order.tolist() if counts[code]}

    def equal(self, value: str, count: int) -> np.ndarray:
        """Which rows have a value."""
        kept = np.zeros(count, bool)
        kept[self.rows[self.codes == self.positions.get(value, -1)]] = True
        return kept


class MiniLMSearch:
    """The products of a catalog, by the cosine of titles."""

    def __init__(self, model: str, catalog: Path, folder: Path, backend: str, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        self._model = load_model(model, backend, threads)
        with zipfile.ZipFile(catalog) as archive:
            lines = archive.read("products.jsonl").decode().splitlines()
            names = json.loads(archive.read("catalog.json"))["attributes"]
        self._products = [json.loads(line) for line in lines]
        self._attributes = {name: Attribute([product.get(name) for product in self._products]) for name in names}
        self._index = faiss.IndexFlatIP(384)
        self._index.add(self._vectors(folder / "minilm.npy"))

    def _vectors(self, path: Path) -> np.ndarray:
        if not path.exists():
            titles = [product["title"] for product in self._products]
            np.save(path, self._model.encode(titles, batch_size=256, normalize_embeddings=True))
        return np.load(path)

    def search(self, body: SearchBody) -> dict[str, Any]:
        """The page of a request."""
        kept = np.ones(len(self._products), bool)
        for alternatives in body.filter:
            pairs = [_EQUAL.fullmatch(text) for text in alternatives]
            kept &= np.logical_or.reduce([self._attributes[p[1]].equal(p[2], len(kept)) for p in pairs])
        parameters = None
        if body.filter:
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(kept, bitorder="little")))
        vector = self._model.encode([body.q], normalize_embeddings=True, show_progress_bar=False)
        scores, rows = self._index.search(vector, body.offset + body.limit, params=parameters)
        found = [(row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if row >= 0]
        names = list(self._attributes) if body.facets == ["*"] else body.facets
        return {
            "hits": [self._hit(row, score) for row, score in found[body.offset :]],
            "estimatedTotalHits": int(kept.sum()),
            "facetDistribution": {name: self._attributes[name].counts(kept) for name in names},
        }

    def _hit(self, row: int, score: float) -> dict[str, Any]:
        product = self._products[row]
        attributes = {name: product[name] for name in self._attributes if name in product}
        image = f"/v1/products/{quote(product['id'], safe='')}/thumbnail" if product.get("image") else None
        return {**attributes, "id": product["id"], "title": product["title"], "_image": image, "_rankingScore": score}


def load_model(model: str, backend: str, threads: int) -> SentenceTransformer:
    """The encoder on ONNX Runtime or torch, with `threads` threads for an operation."""
    import torch

    torch.set_num_threads(threads)
    if backend == "torch":
        return SentenceTransformer(model, local_files_only=True, device="cpu")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return SentenceTransformer(
        model, local_files_only=True, device="cpu", backend="onnx", model_kwargs={"session_options": options}
    )


def create_app() -> FastAPI:
    """The application with the settings of the environment; called in each of uvicorn's workers."""
    import orjson

    settings = json.loads(os.environ[SETTINGS])
    service = MiniLMSearch(**{**settings, "catalog": Path(settings["catalog"]), "folder": Path(settings["folder"])})
    app = FastAPI()

    @app.post("/v1/search")
    def search(body: SearchBody) -> Response:
        return Response(orjson.dumps(service.search(body)), media_type="application/json")

    return app


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of sentence-transformers")
    parser.add_argument("catalog", help=".zip in the catalog format")
    parser.add_argument("folder", help="keeps the vectors")
    parser.add_argument("--backend", choices=("torch", "onnx"), default="onnx")
    parser.add_argument("--threads", type=int, default=1, help="of an operation, and of FAISS")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--port", type=int, default=8001)
    options = vars(parser.parse_args())
    port, workers = options.pop("port"), options.pop("workers")
    os.environ[SETTINGS] = json.dumps(options)
    uvicorn.run(
        "minilm_server:create_app",
        factory=True,
        app_dir=str(Path(__file__).parent),
        port=port,
        workers=workers,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    main()
