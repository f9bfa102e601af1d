import pytest


@pytest.fixture(autouse=True)
def formulas_promote_nothing(strict_dtypes: None) -> None:
    """The objectives are formulas of ours alone, so all of them are tested under strict dtypes."""
