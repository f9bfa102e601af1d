"""The Flax model: encoders, Modal Adaptation, Keyword Enhancement, matching and masked-modeling heads."""
