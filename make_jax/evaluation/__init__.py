"""What a ranking is worth: protocols, metrics, baselines, significance, reports; adapters of models in `models/`."""
