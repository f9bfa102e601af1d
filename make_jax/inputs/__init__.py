"""From texts and image files to the arrays that the model reads. Nothing here imports jax.

batch.py           the keys, shapes and dtypes of a batch; start here
train_pipeline.py  the endless stream of training batches: clicks -> shuffle -> load -> collate (Grain)
eval_pipeline.py   one pass over given products or queries, for evaluation and search
tokenizer.py       texts to token ids: a WordPiece trained on the catalog, or a Hugging Face tokenizer
images.py          image files to uint8 arrays of one size; training augmentation
keyword_swaps.py   negatives: a query with one keyword replaced
masking.py         masked language and masked patch modeling: which tokens and patches are hidden
device.py          prefetching batches onto devices
"""
