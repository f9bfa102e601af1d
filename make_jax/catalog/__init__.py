"""What a shop has: products, queries, clicks, judgements; readers and builders."""
