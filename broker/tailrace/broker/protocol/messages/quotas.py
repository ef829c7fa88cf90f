"""DescribeClientQuotas (48), AlterClientQuotas (49)."""

from tailrace.broker.protocol.fields import array, boolean, float64, int8, int16, int32, message, string


@message
class QuotaComponent:
    entity_type: str = string()
    match_type: int = int8()
    match: str | None = string(nullable="0+")


@message
class DescribeClientQuotasRequest:
    """match_type: 0 exact, 1 default, 2 any (KIP-546)."""

    components: list[QuotaComponent] = array(QuotaComponent)
    strict: bool = boolean()


@message
class QuotaEntity:
    entity_type: str = string()
    entity_name: str | None = string(nullable="0+")


@message
class QuotaValue:
    key: str = string()
    value: float = float64()


@message
class QuotaEntry:
    entity: list[QuotaEntity] = array(QuotaEntity)
    values: list[QuotaValue] = array(QuotaValue)


@message
class DescribeClientQuotasResponse:
    """entries is null when error_code is set."""

    throttle_time_ms: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")
    entries: list[QuotaEntry] | None = array(QuotaEntry, nullable="0+")


@message
class QuotaOp:
    key: str = string()
    value: float = float64()
    remove: bool = boolean()


@message
class QuotaAlteration:
    entity: list[QuotaEntity] = array(QuotaEntity)
    ops: list[QuotaOp] = array(QuotaOp)


@message
class AlterClientQuotasRequest:
    """Sets or removes quota values of an entity."""

    entries: list[QuotaAlteration] = array(QuotaAlteration)
    validate_only: bool = boolean()


@message
class QuotaAlterationResult:
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")
    entity: list[QuotaEntity] = array(QuotaEntity)


@message
class AlterClientQuotasResponse:
    """One error per entity."""

    throttle_time_ms: int = int32()
    entries: list[QuotaAlterationResult] = array(QuotaAlterationResult)
