"""Kafka's dynamic broker configs of Kerberos: kept and described, as a Kafka does that offers no Kerberos.

Tools set them in every cluster (librdkafka's tests do); no login here is by Kerberos, so none of them has an effect.
"""

from collections.abc import Callable, Mapping

from tailrace.broker.log.topic_options import LONG, TopicOption
from tailrace.broker.options import ConfigType

_NO_EFFECT = "Of no effect: this broker offers no Kerberos."


def _number(kind: Callable[[str], float], high: float) -> Callable[[str], Mapping[str, object]]:
    def read(text: str) -> Mapping[str, object]:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError("is not a number") from None
        if not 0 <= value <= high:
            raise ValueError(f"is not between 0 and {high}")
        return {}

    return read


def _option(
    name: str, config_type: ConfigType, default: str, read: Callable[[str], Mapping[str, object]]
) -> TopicOption:
    return TopicOption(name, config_type, default, _NO_EFFECT, read, synonym=name)


KERBEROS_OPTIONS: Mapping[str, TopicOption] = {
    option.name: option
    for option in (
        _option("sasl.kerberos.min.time.before.relogin", ConfigType.LONG, "60000", _number(int, LONG)),
        _option("sasl.kerberos.ticket.renew.jitter", ConfigType.DOUBLE, "0.05", _number(float, 1)),
        _option("sasl.kerberos.ticket.renew.window.factor", ConfigType.DOUBLE, "0.8", _number(float, 1)),
    )
}
"""By name."""
