"""The packages of make_jax; pyproject.toml has everything else, but cannot add `configs/` to the packages it finds."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["make_jax*"]), "make_jax.configs"],
    package_dir={"make_jax.configs": "configs"},  # recipes: make-jax train --config demo, from any folder
    # An editable install by a path entry. Setuptools' default here is an import hook that comes after the folders of
    # sys.path, so in the folder above a clone, `import make_jax` would find the clone as a namespace package.
    options={"editable_wheel": {"mode": "compat"}},
)
