"""A toy risk score; pure, so that every engine computes the same number from the same row."""

HOME = {"DE", "FR", "US"}


def score(amount: float | None, country: str | None) -> float | None:
    """0 (harmless) to 1 (suspicious); unknown without an amount."""
    if amount is None:
        return None
    base = min(amount / 10_000.0, 1.0)
    return base if country in HOME else (1.0 + base) / 2.0
