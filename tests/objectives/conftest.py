import pytest


@pytest.fixture(autouse=True)
def formulas_promote_nothing(strict_dtypes: None) -> None:
    """Tests all objectives under strict dtype promotion: they contain no library layers."""
