"""ApiVersions (18): what this broker serves."""

import re

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import API_VERSIONS, ApiKey, ErrorCode
from tailrace.broker.protocol.messages import ApiVersion, ApiVersionsRequest, ApiVersionsResponse

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_FIRST_VERSION_WITH_SOFTWARE = 3
_advertised: list[ApiVersion] = []


def advertise(keys: list[ApiKey]) -> None:
    """Fix what is advertised: the APIs that have a handler, with the versions that the codec serves.

    No feature levels are advertised, so clients stay with the classic transaction protocol (KIP-584).
    """
    _advertised[:] = [ApiVersion(int(key), *API_VERSIONS[key]) for key in sorted(keys)]


def api_versions(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    """Refuses only a client whose name or version is not of Kafka's form (KIP-511)."""
    software = (request.client_software_name, request.client_software_version)
    if context.version >= _FIRST_VERSION_WITH_SOFTWARE and not all(map(_SOFTWARE.fullmatch, software)):
        return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
    return ApiVersionsResponse(api_keys=_advertised)


def unsupported_version_answer() -> ApiVersionsResponse:
    """What a client gets that asks in a version newer than ours: it retries with one of these (KIP-511)."""
    return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=_advertised)
