"""The checker of the interop tests objects to what it is there to find."""

import pytest
from tests.interop.ledger import Ledger


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        ([b"a", b"u", b"v"], "lost"),
        ([b"a", b"b", b"b"], "twice"),
        ([b"a", b"b", b"x"], "aborted"),
        ([b"a", b"b", b"u"], "torn"),
        ([b"a", b"b", b"stranger"], "nobody wrote"),
    ],
)
def test_each_kind_of_wrong_reading_is_found(read: list[bytes], complaint: str) -> None:
    ledger = Ledger({b"a", b"b"}, {b"x"}, [frozenset({b"u", b"v"})])
    ledger.check([b"a", b"b"])
    ledger.check([b"b", b"a", b"v", b"u"])
    with pytest.raises(AssertionError, match=complaint):
        ledger.check(read)
