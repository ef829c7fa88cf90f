"""Options of `tailrace broker`: Kafka's names from a file and from flags, every mistake at its place."""

from pathlib import Path

import pytest

from tailrace.broker.config import OPTIONS, BrokerConfig
from tailrace.changes import ConfigError
from tailrace.pipeline.broker_file import all_options, read_broker_options
from tailrace.pipeline.diagnostics import SpecError


def write(folder: Path, text: str) -> Path:
    file = folder / "broker.yaml"
    file.write_text(text)
    return file


def test_a_file_names_options_as_kafka_does_and_flags_override_it(tmp_path: Path) -> None:
    file = write(
        tmp_path, "log.dir: data\nnum.partitions: 4\nauto.create.topics.enable: false\ngroup.max.size: '7'\n"
    )
    found = read_broker_options(file, {"tailrace.listen": "127.0.0.1:1"}, ("num.partitions=5",))
    assert found.data_dir == tmp_path / "data"
    assert found.service.listen == "127.0.0.1:1"
    assert found.broker == {"default_partitions": 5, "auto_create_topics": False, "group_max_size": 7}
    assert BrokerConfig(found.data_dir, **found.broker).default_partitions == 5


def test_every_mistake_of_the_file_is_told_with_its_line_and_column(tmp_path: Path) -> None:
    file = write(tmp_path, "log.dir: data\nnum.partition: 4\nnode.id: one\ndelete.topic.enable: 3\n")
    with pytest.raises(SpecError) as refused:
        read_broker_options(file, {})
    assert [(p.line, p.column, p.message, p.fix) for p in refused.value.diagnostics] == [
        (2, 1, "'num.partition' is not known here", "did you mean 'num.partitions'?"),
        (3, 1, "node.id is not a whole number", ""),
        (4, 1, "delete.topic.enable is neither true nor false", ""),
    ]
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("flags", "settings", "told"),
    [
        ({}, (), "log.dir"),
        ({"log.dir": "d"}, ("num.partitions",), "NAME=VALUE"),
        ({"log.dir": "d"}, ("num.partition=1",), "did you mean 'num.partitions'"),
        ({"log.dir": "d"}, ("num.partitions=x",), "num.partitions is not a whole number"),
        ({"log.dir": "d", "tailrace.log.format": "xml"}, (), "text or json"),
    ],
)
def test_a_wrong_flag_is_refused_with_its_name(
    flags: dict[str, object], settings: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        read_broker_options(None, flags, settings)
    assert refused.value.exit_code == 2


def test_an_option_out_of_range_is_named_as_the_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num\.partitions"):
        BrokerConfig(tmp_path, default_partitions=0)


def test_every_option_is_documented_and_has_a_name_of_its_own() -> None:
    assert all(option.documentation.endswith(".") for option in all_options().values())
    assert len({option.field for option in all_options().values()}) == len(all_options())
    assert all(name == name.lower() for name in OPTIONS)
    assert [name for name in OPTIONS if "." not in name] == ["listeners"]  # Kafka's own name
