"""Feature levels of the cluster (KIP-584): what a new one starts with, and what UpdateFeatures made of it.

    group.version           1: the consumer protocol (KIP-848)
    transaction.version     2: the epoch is raised with every transaction (KIP-890)

Source: Kafka's FeatureControlManager (4.3), without the features of what is not spoken here.
"""

import logging
from collections.abc import Mapping, Sequence
from enum import IntEnum

from tailrace.broker.cluster_store import ClusterStore
from tailrace.broker.log import LogError
from tailrace.broker.protocol.errors import ErrorCode

GROUP_VERSION, TRANSACTION_VERSION = "group.version", "transaction.version"
NEWEST = {GROUP_VERSION: 1, TRANSACTION_VERSION: 2}
"""The features that there are, with the highest level of each; the lowest is 0."""

_log = logging.getLogger(__name__)


class UpgradeType(IntEnum):
    """What a client wants to happen, so that no level goes down by mistake."""

    UPGRADE = 1
    SAFE_DOWNGRADE = 2
    UNSAFE_DOWNGRADE = 3


Update = tuple[str, int, int]
"""Feature, level, upgrade type."""


class FeatureLevels:
    """Obeyed at once; what was changed over the protocol outlives the process and goes over the option."""

    def __init__(self, transaction_version: int, store: ClusterStore) -> None:
        self._store = store
        changed, self.epoch = store.feature_levels()
        self._levels = {GROUP_VERSION: 1, TRANSACTION_VERSION: transaction_version, **changed}
        if (level := self.transaction_version()) != transaction_version:
            _log.info(
                "transaction.version is %d, as it was set by a client; the option says %d and does not count",
                level,
                transaction_version,
            )

    @property
    def levels(self) -> Mapping[str, int]:
        """Every feature with its level."""
        return self._levels

    def transaction_version(self) -> int:
        """The level that transactions obey."""
        return self._levels[TRANSACTION_VERSION]

    @property
    def consumer_protocol(self) -> bool:
        """Whether groups may speak the consumer protocol."""
        return self._levels[GROUP_VERSION] > 0

    def check(self, updates: Sequence[Update]) -> dict[str, int]:
        """The levels that would change.  Raises LogError: INVALID_UPDATE_VERSION for all, in Kafka's words."""
        wanted = {}
        for feature, level, upgrade_type in updates:
            if (wrong := self._wrong(feature, level, upgrade_type)) is not None:
                raise LogError(
                    ErrorCode.INVALID_UPDATE_VERSION,
                    "The update failed for all features since the following feature had an error: "
                    f"Invalid update version {level} for feature {feature}. {wrong}",
                )
            wanted[feature] = level
        return {feature: level for feature, level in wanted.items() if level != self._levels[feature]}

    def update(self, updates: Sequence[Update]) -> None:
        """Change levels, all or none."""
        if changed := self.check(updates):
            self._store.set_feature_levels(changed)
            self._levels.update(changed)
            self.epoch += len(changed)

    def _wrong(self, feature: str, level: int, upgrade_type: int) -> str | None:
        newest = NEWEST.get(feature)
        if upgrade_type not in set(UpgradeType):
            return "The controller does not support the given upgrade type."
        if level < 0:
            return "A feature version cannot be less than 0."
        if newest is None:
            return "The broker does not support this feature."
        if level > newest:
            return f"The broker only supports versions 0-{newest}"
        present = self._levels[feature]
        if level < present and upgrade_type == UpgradeType.UPGRADE:
            return (
                "Can't downgrade the version of this feature without setting the upgrade type to either safe or"
                " unsafe downgrade."
            )
        if level > present and upgrade_type != UpgradeType.UPGRADE:
            return "Can't downgrade to a newer version."
        return None
