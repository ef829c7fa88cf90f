"""DescribeLogDirs (35): sizes on disk."""

import shutil

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol.messages import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)


def describe_log_dirs(context: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    """The one data directory with the bytes of each partition; null topics: all."""
    wanted = None
    if request.topics is not None:
        wanted = {(topic.topic, index) for topic in request.topics for index in topic.partitions}
    topics: dict[str, DescribeLogDirsTopic] = {}
    for log in sorted(context.broker.logs.partitions(), key=lambda log: (log.topic, log.partition)):
        if wanted is None or (log.topic, log.partition) in wanted:
            entry = topics.setdefault(log.topic, DescribeLogDirsTopic(log.topic))
            entry.partitions.append(DescribeLogDirsPartition(log.partition, log.size, 0))
    data_dir = context.broker.config.data_dir
    volume = shutil.disk_usage(data_dir)
    return DescribeLogDirsResponse(
        results=[
            DescribeLogDirsResult(
                0, str(data_dir.absolute()), list(topics.values()), volume.total, volume.free
            )
        ]
    )
