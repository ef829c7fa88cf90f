"""UpdateFeatures (57): feature levels go up and down while the broker runs (KIP-584, KIP-1022)."""

from tailrace.broker.feature_levels import Update, UpgradeType
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

_FIRST_VERSION_WITH_UPGRADE_TYPE = 1


def update_features(context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse:
    """All levels or none; what the answer says is durable."""
    features = context.broker.features
    updates = [_update(context, asked) for asked in request.feature_updates]
    try:
        if request.validate_only:
            features.check(updates)
        else:
            features.update(updates)
    except LogError as error:
        return UpdateFeaturesResponse(0, error.code, str(error))
    return UpdateFeaturesResponse(
        results=[UpdatableFeatureResult(feature, ErrorCode.NONE, None) for feature, *_ in updates]
    )


def _update(context: RequestContext, asked: FeatureUpdateKey) -> Update:
    if context.version >= _FIRST_VERSION_WITH_UPGRADE_TYPE:
        return asked.feature, asked.max_version_level, asked.upgrade_type
    kind = UpgradeType.SAFE_DOWNGRADE if asked.allow_downgrade else UpgradeType.UPGRADE
    return asked.feature, asked.max_version_level, kind
