"""UpdateFeatures over the wire: what `kafka-features.sh` asks, and that a level is obeyed from then on."""

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, begin, create, fetch_request, fetched

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m

TRANSACTIONS, GROUPS = "transaction.version", "group.version"
UPGRADE, SAFE, UNSAFE = 1, 2, 3
BUMPING = 5
READ_COMMITTED = 1
Update = tuple[str, int, int]


def update(
    wire: WireClient, *updates: Update, version: int = 2, validate_only: bool = False
) -> m.UpdateFeaturesResponse:
    asked = [m.FeatureUpdateKey(name, level, kind != UPGRADE, kind) for name, level, kind in updates]
    request = m.UpdateFeaturesRequest(1_000, asked, validate_only)
    answer: m.UpdateFeaturesResponse = wire.ask(ApiKey.UPDATE_FEATURES, request, version)
    return answer


def told(wire: WireClient) -> m.ApiVersionsResponse:
    asked = m.ApiVersionsRequest(client_software_name="wire", client_software_version="1")
    answer: m.ApiVersionsResponse = wire.ask(ApiKey.API_VERSIONS, asked)
    return answer


def levels(wire: WireClient) -> dict[str, int]:
    """What clients are told; level 0 is not."""
    features = told(wire).finalized_features
    assert all(feature.min_version_level == feature.max_version_level for feature in features)
    return {feature.name: feature.max_version_level for feature in features}


def end(wire: WireClient, who: m.InitProducerIdResponse, version: int) -> m.EndTxnResponse:
    request = m.EndTxnRequest("tx", who.producer_id, who.producer_epoch, committed=True)
    answer: m.EndTxnResponse = wire.ask(ApiKey.END_TXN, request, version)
    return answer


def test_a_level_goes_up_and_down_and_is_obeyed_at_once(wire: WireClient) -> None:
    create(wire, "t")
    assert levels(wire) == {GROUPS: 1}
    who = begin(wire, "tx", "t")
    assert end(wire, who, BUMPING).error_code == ErrorCode.UNSUPPORTED_VERSION
    assert update(wire, (TRANSACTIONS, 2, UPGRADE)).error_code == 0
    assert levels(wire) == {GROUPS: 1, TRANSACTIONS: 2}
    ended = end(wire, who, BUMPING)
    assert (ended.error_code, ended.producer_epoch) == (0, who.producer_epoch + 1)
    assert update(wire, (TRANSACTIONS, 0, SAFE)).error_code == 0
    assert levels(wire) == {GROUPS: 1}
    assert end(wire, who, BUMPING).error_code == ErrorCode.UNSUPPORTED_VERSION


def test_a_producer_of_the_classic_protocol_commits_what_it_began_before_the_level_went_up(
    wire: WireClient,
) -> None:
    topic_id = create(wire, "t")
    who = begin(wire, "tx", "t")
    assert update(wire, (TRANSACTIONS, 2, UPGRADE)).error_code == 0
    assert end(wire, who, BUMPING - 1).error_code == 0
    asked = fetch_request(topic_id)
    asked.isolation_level = READ_COMMITTED
    assert fetched(wire.ask(ApiKey.FETCH, asked))[0] == b"in transaction"


def test_a_level_outlives_a_kill_and_goes_over_the_option(broker_factory: BrokerFactory) -> None:
    for option, kind, level in ((0, UPGRADE, 2), (2, SAFE, 0)):
        broker = broker_factory(f"from-{option}", transaction_version=option)
        with WireClient(broker.bootstrap) as wire:
            assert levels(wire).get(TRANSACTIONS, 0) == option
            assert update(wire, (TRANSACTIONS, level, kind)).error_code == 0
        broker.kill()
        with WireClient(broker.start().bootstrap) as wire:
            assert levels(wire).get(TRANSACTIONS, 0) == level


def test_clients_see_by_the_epoch_that_levels_have_changed(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    epochs = []
    for updates in ((), ((TRANSACTIONS, 2, UPGRADE),), ((TRANSACTIONS, 1, SAFE), (GROUPS, 0, SAFE)), ()):
        with WireClient(broker.bootstrap) as wire:
            assert update(wire, *updates).error_code == 0
            epochs.append(told(wire).finalized_features_epoch)
        broker.stop()
        broker.start()
    assert epochs[0] < epochs[1] < epochs[2] == epochs[3]


WRONG: list[tuple[Update, str]] = [
    ((TRANSACTIONS, 3, UPGRADE), "only supports versions 0-2"),
    ((GROUPS, 2, UPGRADE), "only supports versions 0-1"),
    ((TRANSACTIONS, -1, SAFE), "cannot be less than 0"),
    ((TRANSACTIONS, 0, UPGRADE), "Can't downgrade the version of this feature without"),
    ((TRANSACTIONS, 2, SAFE), "Can't downgrade to a newer version"),
    ((TRANSACTIONS, 2, UNSAFE), "Can't downgrade to a newer version"),
    ((TRANSACTIONS, 2, 0), "does not support the given upgrade type"),
    ((TRANSACTIONS, 2, 9), "does not support the given upgrade type"),
    (("metadata.version", 30, UPGRADE), "does not support this feature"),
    (("", 0, SAFE), "does not support this feature"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=str)
def test_what_kafka_refuses_is_refused_in_every_version_and_nothing_else_is_changed(
    broker_factory: BrokerFactory, wrong: Update, said: str
) -> None:
    with WireClient(broker_factory(transaction_version=1).bootstrap) as wire:
        for version in (1, 2):
            for validate_only in (True, False):
                updates = ((GROUPS, 0, SAFE), wrong)
                answer = update(wire, *updates, version=version, validate_only=validate_only)
                assert (answer.error_code, answer.results) == (ErrorCode.INVALID_UPDATE_VERSION, [])
                message = answer.error_message or ""
                assert f"Invalid update version {wrong[1]} for feature {wrong[0]}. " in message
                assert said in message
        assert levels(wire) == {GROUPS: 1, TRANSACTIONS: 1}


def test_an_update_that_is_only_checked_changes_nothing(wire: WireClient) -> None:
    before = told(wire)
    assert update(wire, (TRANSACTIONS, 2, UPGRADE), validate_only=True).error_code == 0
    assert told(wire) == before


def test_before_version_2_each_feature_is_answered_and_in_version_0_a_downgrade_is_allowed_by_a_flag(
    wire: WireClient,
) -> None:
    for version, kind, level in ((1, UPGRADE, 2), (1, UNSAFE, 1), (0, SAFE, 0), (0, UPGRADE, 2)):
        answer = update(wire, (TRANSACTIONS, level, kind), (GROUPS, 1, UPGRADE), version=version)
        assert [(r.feature, r.error_code) for r in answer.results] == [(TRANSACTIONS, 0), (GROUPS, 0)]
        assert levels(wire).get(TRANSACTIONS, 0) == level
    assert update(wire, (TRANSACTIONS, 0, UPGRADE), version=0).error_code == ErrorCode.INVALID_UPDATE_VERSION


def test_without_group_version_1_the_consumer_protocol_is_refused_and_its_groups_stay(
    wire: WireClient,
) -> None:
    create(wire, "t")
    said = m.ConsumerGroupHeartbeatRequest(
        "g", "a", 0, rebalance_timeout_ms=1000, subscribed_topic_names=["t"], topic_partitions=[]
    )

    def answers() -> tuple[int, int]:
        (described,) = wire.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, m.ConsumerGroupDescribeRequest(["g"])).groups
        return wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, said).error_code, described.error_code

    assert wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, said).error_code == 0
    assert update(wire, (GROUPS, 0, SAFE)).error_code == 0
    assert levels(wire) == {}
    assert answers() == (ErrorCode.UNSUPPORTED_VERSION, ErrorCode.UNSUPPORTED_VERSION)
    listed = wire.ask(ApiKey.LIST_GROUPS, m.ListGroupsRequest()).groups
    assert [(group.group_id, group.group_type) for group in listed] == [("g", "consumer")]
    assert update(wire, (GROUPS, 1, UPGRADE)).error_code == 0
    assert answers() == (0, 0)
