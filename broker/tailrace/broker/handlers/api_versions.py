"""ApiVersions (18): what this broker serves, and the feature levels that it has (KIP-584)."""

import re
from collections.abc import Mapping

from tailrace.broker.feature_levels import NEWEST
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import API_VERSIONS, ApiKey, ErrorCode
from tailrace.broker.protocol.messages import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_FIRST_VERSION_WITH_SOFTWARE = 3
_FIRST_VERSION_WITH_LEVEL_0 = 4
_served: list[ApiKey] = []


def advertise(keys: list[ApiKey]) -> None:
    """Fix what is advertised: the APIs that have a handler, with the versions that the codec serves."""
    _served[:] = sorted(keys)


def _advertised() -> list[ApiVersion]:
    return [ApiVersion(int(key), *API_VERSIONS[key]) for key in _served]


def _supported(version: int) -> list[SupportedFeatureKey]:
    """Clients that ask before version 4 cannot read a level 0."""
    lowest = 0 if version >= _FIRST_VERSION_WITH_LEVEL_0 else 1
    return [SupportedFeatureKey(name, lowest, newest) for name, newest in NEWEST.items()]


def _finalized(levels: Mapping[str, int]) -> list[FinalizedFeatureKey]:
    """Level 0 is not told, as Kafka does: clients then stay with the classic protocols."""
    return [FinalizedFeatureKey(name, level, level) for name, level in levels.items() if level]


def api_versions(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    """Refuses only a client whose name or version is not of Kafka's form (KIP-511)."""
    software = (request.client_software_name, request.client_software_version)
    if context.version >= _FIRST_VERSION_WITH_SOFTWARE and not all(map(_SOFTWARE.fullmatch, software)):
        return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
    return ApiVersionsResponse(
        api_keys=_advertised(),
        supported_features=_supported(context.version),
        finalized_features_epoch=context.broker.features.epoch,
        finalized_features=_finalized(context.broker.features.levels),
    )


def unsupported_version_answer() -> ApiVersionsResponse:
    """What a client gets that asks in a version newer than ours: it retries with one of these (KIP-511)."""
    return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=_advertised())
