"""The text and image encoders, modal adaptation, and the module that joins them."""
