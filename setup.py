"""The packages of make_jax; pyproject.toml has everything else, but cannot add `configs/` to the packages it finds."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["make_jax*"]), "make_jax.configs"],
    package_dir={"make_jax.configs": "configs"},  # recipes: make-jax train --config demo, from any folder
)
