"""Choices that fall alike in every run and on every machine: by a hash of what is chosen."""

import hashlib


def share(what: str, identity: str) -> float:
    """A number in [0, 1) that depends on both texts alone: the first 8 bytes of SHA-256 of "<what>:<identity>"."""
    return int.from_bytes(hashlib.sha256(f"{what}:{identity}".encode()).digest()[:8], "big") / 2**64


def digest(text: str) -> str:
    """16 hexadecimal digits of SHA-256 of a text: the id of a query that has none of its own."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
