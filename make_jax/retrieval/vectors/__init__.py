"""Vectors on disk: every form that is read, and the one that is written (docs/embeddings.md, docs/models.md).

* `source.py`: `VectorSource`, vectors that are read block by block
* `shards.py`: a folder of Parquet shards with vectors.json, read by `VectorFolder` and written shard by shard
* `precomputed.py`: vectors that another program made, NumPy or Parquet, looked up by id
* `parquet.py`: the columns of ids and vectors that both read
"""
