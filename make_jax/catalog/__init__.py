"""Product catalogs: products, queries, clicks and relevance judgements. The file format is in docs/catalog.md.

schema.py       records: Product, Query, Click, CatalogInfo; attributes.py: attributes of products
source.py       bounded, safe reading of a folder or a .zip; images.py: safe decoding of images
jsonl.py        pydantic models of the JSON lines, and their error messages
reader.py       `Catalog.load`: line_chunks.py parses lines in processes (line_parsers.py), references.py checks ids
columns.py      products, queries and clicks as Arrow tables that read like sequences; id_index.py: ids to positions
check.py        every problem of a catalog, images decoded; plausibility.py, repetitions.py: its limits, and warnings
describe.py     counts and a contact sheet
build.py        training data on disk: stored_columns.py, memory-mapped columns; product_shards.py and shards.py, TFDS
                shards in ArrayRecord; cache.py, the folder of built catalogs
keywords.py     the keyword vocabulary, tagging of texts; mining.py and terms.py mine it; statistics.py reports on it
importers/      public benchmarks as catalogs. To add one: a new file with `read(state, source) -> BenchmarkInfo`, built
                on tables.py (rows of files) and import_state.py (resumable storage), and an entry in command.py
__main__.py     the command line: python -m make_jax.catalog
"""
