"""What the broker advertises, against the ApiVersions answer of Apache Kafka 4.3.1, taken from the wire."""

import re
from pathlib import Path

from tests.fixtures.wire import WireClient

from tailrace.broker.protocol import API_VERSIONS, ApiKey
from tailrace.broker.protocol import messages as m

APACHE_KAFKA_4_3_1 = {
    0: (0, 13), 1: (4, 18), 2: (1, 11), 3: (0, 13), 8: (2, 10), 9: (1, 10), 10: (0, 6), 11: (0, 9), 12: (0, 4),
    13: (0, 5), 14: (0, 5), 15: (0, 6), 16: (0, 5), 17: (0, 1), 18: (0, 4), 19: (2, 7), 20: (1, 6), 21: (0, 2),
    22: (0, 5), 23: (2, 4), 24: (0, 5), 25: (0, 4), 26: (0, 5), 27: (1, 2), 28: (0, 5), 29: (1, 3), 30: (1, 3),
    31: (1, 3), 32: (1, 4), 33: (0, 2), 34: (1, 2), 35: (1, 5), 36: (0, 2), 37: (0, 3), 38: (1, 3), 39: (1, 2),
    40: (1, 2), 41: (1, 3), 42: (0, 2), 43: (0, 2), 44: (0, 1), 45: (0, 1), 46: (0, 0), 47: (0, 0), 48: (0, 1),
    49: (0, 1), 50: (0, 0), 51: (0, 0), 55: (0, 2), 57: (0, 2), 60: (0, 2), 61: (0, 0), 64: (0, 0), 65: (0, 0),
    66: (0, 2), 68: (0, 1), 69: (0, 1), 74: (0, 1), 75: (0, 0), 76: (1, 1), 77: (1, 1), 78: (1, 2), 79: (1, 2),
    80: (0, 1), 81: (0, 0), 83: (0, 0), 84: (0, 0), 85: (0, 1), 86: (0, 0), 87: (0, 1), 88: (0, 0), 89: (0, 0),
    90: (0, 1), 91: (0, 0), 92: (0, 0),
}  # fmt: skip
SPOKEN_BETWEEN_BROKERS = {ApiKey.ADD_PARTITIONS_TO_TXN: (0, 3)}  # 4 and 5 come from other brokers only
NOT_SERVED = {
    **dict.fromkeys(range(38, 42), "delegation tokens: a Kafka without a secret for them refuses them too"),
    **dict.fromkeys((80, 81), "voters of a quorum: there is none"),
    **dict.fromkeys((*range(76, 80), *range(83, 88), *range(90, 93)), "share groups (KIP-932)"),
    **dict.fromkeys((88, 89), "Streams groups (KIP-1071)"),
}


def test_every_version_that_apache_kafka_4_3_1_advertises_is_served_or_left_out_for_a_reason(
    wire: WireClient,
) -> None:
    answer = wire.ask(ApiKey.API_VERSIONS, m.ApiVersionsRequest("test", "1"))
    advertised = {entry.api_key: (entry.min_version, entry.max_version) for entry in answer.api_keys}
    expected = {key: APACHE_KAFKA_4_3_1[key] for key in APACHE_KAFKA_4_3_1.keys() - NOT_SERVED.keys()}
    assert advertised == expected | SPOKEN_BETWEEN_BROKERS
    assert set(NOT_SERVED) <= set(APACHE_KAFKA_4_3_1)


def test_the_readme_lists_every_api_with_its_versions() -> None:
    readme = (Path(__file__).parents[4] / "broker" / "README.md").read_text()
    listed = {
        int(key): (name, int(first), int(last))
        for name, key, first, last in re.findall(r"([A-Z]\w+) \((\d+)\) (\d+)-(\d+)", readme)
    }
    assert listed == {
        int(key): (key.name.title().replace("_", ""), *versions) for key, versions in API_VERSIONS.items()
    }
