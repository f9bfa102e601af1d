"""Models that evaluation opens."""
