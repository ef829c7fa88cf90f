"""DescribeClientQuotas (48), AlterClientQuotas (49) (KIP-546)."""

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    QuotaAlteration,
    QuotaAlterationResult,
    QuotaEntity,
    QuotaEntry,
    QuotaValue,
)
from tailrace.security.quotas import KEYS, Any, QuotaError
from tailrace.security.store import Entity, StoreError


def describe_client_quotas(
    context: RequestContext, request: DescribeClientQuotasRequest
) -> DescribeClientQuotasResponse:
    """Quotas of the entities that every component matches."""
    components = [(part.entity_type, part.match_type, part.match) for part in request.components]
    kinds = [kind for kind, _, _ in components]
    wrong = None
    if len(kinds) != len(set(kinds)):
        wrong = "an entity type is named more than once"
    elif set(kinds) - KEYS.keys():
        wrong = "an entity is a user, a client-id or an ip"
    elif any(not 0 <= how <= Any for _, how, _ in components):
        wrong = "a match is exact, default or any"
    if wrong is not None:
        return DescribeClientQuotasResponse(
            error_code=ErrorCode.INVALID_REQUEST, error_message=wrong, entries=None
        )
    found = context.broker.security.quotas.describe(components, strict=request.strict)
    return DescribeClientQuotasResponse(
        error_message=None,
        entries=[
            QuotaEntry(
                [QuotaEntity(kind, name) for kind, name in entity],
                [QuotaValue(key, value) for key, value in values.items()],
            )
            for entity, values in found.items()
        ],
    )


def alter_client_quotas(
    context: RequestContext, request: AlterClientQuotasRequest
) -> AlterClientQuotasResponse:
    """Set and remove quotas, durably; each entity on its own."""
    return AlterClientQuotasResponse(
        entries=[
            QuotaAlterationResult(*_alter(context, entry, validate_only=request.validate_only), entry.entity)
            for entry in request.entries
        ]
    )


def _alter(
    context: RequestContext, entry: QuotaAlteration, *, validate_only: bool
) -> tuple[ErrorCode, str | None]:
    quotas = context.broker.security.quotas
    entity: Entity = tuple(
        sorted(((part.entity_type, part.entity_name) for part in entry.entity), key=lambda part: part[0])
    )
    changes = {op.key: None if op.remove else op.value for op in entry.ops}
    try:
        quotas.check(entity, changes)
        if not validate_only:
            quotas.alter({entity: changes})
    except QuotaError as error:
        return ErrorCode.INVALID_REQUEST, str(error)
    except StoreError as error:
        return ErrorCode.UNKNOWN_SERVER_ERROR, str(error)
    return ErrorCode.NONE, None
