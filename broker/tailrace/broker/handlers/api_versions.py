"""ApiVersions (18): what this broker serves."""

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import API_VERSIONS, ApiKey, ErrorCode
from tailrace.broker.protocol.messages import ApiVersion, ApiVersionsRequest, ApiVersionsResponse

_advertised: list[ApiVersion] = []


def advertise(keys: list[ApiKey]) -> None:
    """Fix what is advertised: the APIs that have a handler, with the versions that the codec serves.

    No feature levels are advertised, so clients stay with the classic transaction protocol (KIP-584).
    """
    _advertised[:] = [ApiVersion(int(key), *API_VERSIONS[key]) for key in sorted(keys)]


def api_versions(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    """Never fails: a client that may not connect is told so later."""
    return ApiVersionsResponse(api_keys=_advertised)


def unsupported_version_answer() -> ApiVersionsResponse:
    """What a client gets that asks in a version newer than ours: it retries with one of these (KIP-511)."""
    return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=_advertised)
