"""Command line programs: options become a config or an options dataclass, then one function of the library runs."""
