"""Embedding, exact top-k search and re-ranking.

* `retriever.py`: `Retriever`, a trained model that encodes texts and products and searches a catalog
* `embed.py`: the interface of a model (`Encoder`, `PrecomputedVectors`), and the vectors of a catalog's products
* `embed_to_disk.py`: the same into a folder of shards, restartable and by several processes
* `ray_devices.py`: the same by one actor a device of a Ray cluster
* `vector_index.py`: vectors that can be searched, `ProductEmbeddings` in memory and `DiskEmbeddings` on disk
* `device_vectors.py`: vectors in memory that stay on the devices between searches
* `top_k.py`: exact top-k of arrays and of vectors on disk, on CPU and on any number of devices
* `vectors/`: every format of vectors on disk
* `rerank.py`: the matching encoder on the top products of each query
"""
