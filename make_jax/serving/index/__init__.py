"""The index of a catalog on disk: products, vectors and pictures of one or several versions. docs/serving.md.

    INDEX/current                      the version that readers open (JSON with a checksum), replaced atomically
          lock                         locked by the process that writes
          building-<key>/              a version that is not complete yet; the same command continues it
          versions/v1/index.json       manifest: model, catalog, settings, size and checksum of every file
                      products-*.arrow     columns of the catalog, memory-mapped
                      vectors/             float32 vectors, ids and weights in Parquet (docs/embeddings.md)
                      thumbnails-*.arrow   WebP pictures, and the checksum of each original
                      updates/1/           replaced and added products, and `rows.npy`, `deleted.npy`

* `manifest.py`: the manifest and its checksum
* `versions.py`: which versions exist, which one is current, the lock of writers
* `reader.py`: `open_index`
* `writer.py`: builds a version
* `update.py`: adds, replaces and deletes products of the current version
* `thumbnails.py`: the pictures
"""
