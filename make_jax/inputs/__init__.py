"""What the model sees: tokenizer, images, and the pipeline that makes batches."""
