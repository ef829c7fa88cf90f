"""Consumer groups: who reads, how far, and setting them back."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.broker.client import EARLIEST, LATEST, BrokerError, Client, TopicPartition
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.changes import TailraceError
from tailrace.pipeline.admin.cluster import GROUP, ask_coordinator, ask_every_node, check, check_coordinated
from tailrace.pipeline.admin.places import Start, offsets_at

_WITHOUT_MEMBERS = ("Empty", "Dead")


def list_groups(client: Client) -> list[dict[str, Any]]:
    """Every group of the cluster with its state and protocol type."""
    found = []
    for response in ask_every_node(client, ApiKey.LIST_GROUPS, m.ListGroupsRequest()):
        check(response.error_code, "list groups")
        found += [
            {
                "group": group.group_id,
                "state": group.group_state or None,
                "type": group.group_type or "classic",
                "protocol_type": group.protocol_type,
            }
            for group in response.groups
        ]
    return sorted(found, key=lambda group: group["group"])


def describe_group(client: Client, group: str) -> dict[str, Any]:
    """State, members with their partitions, and the lag of every committed partition.

    `protocol` is the assignor.  Members of the consumer protocol also show their epoch, what they subscribe to,
    and the partitions that they are on the way to.
    """
    view = _view(client, group)
    committed = client.committed_offsets(group)
    if view.state == "Dead" and not committed:
        raise TailraceError(f"there is no group '{group}'", fix="list them: tailrace groups list")
    return {
        "group": group,
        "state": view.state,
        "type": view.type,
        "protocol": view.protocol,
        "members": view.members,
        "offsets": offset_rows(client, committed),
    }


def offset_rows(client: Client, committed: dict[TopicPartition, int]) -> list[dict[str, Any]]:
    """A row per committed partition; `lag` None where the topic is gone."""
    known = client.metadata({place.topic for place in committed}) if committed else {}
    there = [place for place in committed if place.topic in known and place in known[place.topic].partitions]
    ends = client.list_offsets(there, LATEST)
    return [
        {
            "topic": place.topic,
            "partition": place.partition,
            "committed": offset,
            "end": ends.get(place),
            "lag": max(0, ends[place] - offset) if place in ends else None,
        }
        for place, offset in sorted(committed.items())
    ]


def reset_offsets(
    client: Client, group: str, start: Start, topics: Sequence[str], *, dry_run: bool
) -> list[dict[str, Any]]:
    """Commit `start` for the partitions that the group has committed, or for all of `topics`.

    Raises TailraceError while the group has members: they would commit their own offsets over it.
    """
    view = _view(client, group)
    if view.state not in _WITHOUT_MEMBERS:
        raise TailraceError(
            f"the group '{group}' is {view.state} with {len(view.members)} members",
            fix="stop its members first",
        )
    committed = client.committed_offsets(group)
    places = [place for place in committed if not topics or place.topic in topics]
    if topics:
        known = client.metadata(topics)
        for topic in topics:
            if topic not in known:
                raise TailraceError(f"there is no topic '{topic}'", fix="list them: tailrace topics list")
            places += [place for place in known[topic].partitions if place not in committed]
    if not places:
        raise TailraceError(
            f"the group '{group}' has committed nothing", fix="say which topics to set: --topic NAME"
        )
    earliest, latest = client.list_offsets(places, EARLIEST), client.list_offsets(places, LATEST)
    targets = offsets_at(client, places, start, earliest, latest)
    if not dry_run:
        client.commit_offsets(group, targets)
    return [
        {
            "topic": place.topic,
            "partition": place.partition,
            "before": committed.get(place),
            "after": targets[place],
        }
        for place in sorted(places)
    ]


def delete_groups(client: Client, groups: Sequence[str]) -> None:
    """Delete groups without members, with their offsets."""
    for group in groups:

        def deleted(response: Any, group: str = group) -> None:
            for result in response.results:
                check_coordinated(client, GROUP, group, result.error_code, f"delete group '{group}'")

        ask_coordinator(
            client, GROUP, group, ApiKey.DELETE_GROUPS, m.DeleteGroupsRequest(groups_names=[group]), deleted
        )


@dataclass(frozen=True, slots=True)
class _View:
    """A group of either protocol."""

    state: str
    type: str
    protocol: str | None
    members: list[dict[str, Any]]


def _view(client: Client, group: str) -> _View:
    found = _describe_consumer(client, group)
    if found is None:
        return _describe_classic(client, group)
    members = [
        {
            "member": member.member_id,
            "client_id": member.client_id,
            "host": member.client_host,
            "instance": member.instance_id,
            "partitions": _places(member.assignment),
            "epoch": member.member_epoch,
            "subscription": [*member.subscribed_topic_names, *filter(None, [member.subscribed_topic_regex])],
            "target": _places(member.target_assignment),
        }
        for member in found.members
    ]
    return _View(found.group_state, "consumer", found.assignor_name, members)


def _describe_consumer(client: Client, group: str) -> m.DescribedConsumerGroup | None:
    """The group of the consumer protocol, None where it is none or the broker knows none."""

    def described(response: Any) -> m.DescribedConsumerGroup | None:
        (found,) = response.groups
        if found.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
            return None
        what = f"describe group '{group}'"
        check_coordinated(client, GROUP, group, found.error_code, what, found.error_message)
        result: m.DescribedConsumerGroup = found
        return result

    request = m.ConsumerGroupDescribeRequest(group_ids=[group])
    try:
        return ask_coordinator(client, GROUP, group, ApiKey.CONSUMER_GROUP_DESCRIBE, request, described)
    except BrokerError as error:
        if error.error is ErrorCode.UNSUPPORTED_VERSION:
            return None
        raise


def _describe_classic(client: Client, group: str) -> _View:
    def described(response: Any) -> m.DescribedGroup:
        (found,) = response.groups
        if found.error_code != ErrorCode.GROUP_ID_NOT_FOUND:  # v6 says so where older versions say Dead
            what = f"describe group '{group}'"
            check_coordinated(client, GROUP, group, found.error_code, what, found.error_message)
        else:
            found.group_state = "Dead"
        result: m.DescribedGroup = found
        return result

    request = m.DescribeGroupsRequest(groups=[group])
    found = ask_coordinator(client, GROUP, group, ApiKey.DESCRIBE_GROUPS, request, described)
    members = [
        {
            "member": member.member_id,
            "client_id": member.client_id,
            "host": member.client_host,
            "instance": member.group_instance_id,
            "partitions": [str(place) for place in _assigned(member.member_assignment)],
        }
        for member in found.members
    ]
    return _View(found.group_state, "classic", found.protocol_data or None, members)


def _places(assignment: m.NamedAssignment) -> list[str]:
    return [
        str(TopicPartition(topic.topic_name, number))
        for topic in assignment.topic_partitions
        for number in topic.partitions
    ]


def _assigned(assignment: bytes) -> list[TopicPartition]:
    """The partitions of a ConsumerProtocolAssignment; none where a client has its own form."""
    places = []
    try:
        (count,) = struct.unpack_from(">i", assignment, 2)
        at = 6
        for _ in range(count):
            (length,) = struct.unpack_from(">h", assignment, at)
            topic = assignment[at + 2 : at + 2 + length].decode()
            at += 2 + length
            (partitions,) = struct.unpack_from(">i", assignment, at)
            places += [
                TopicPartition(topic, index)
                for index in struct.unpack_from(f">{partitions}i", assignment, at + 4)
            ]
            at += 4 + 4 * partitions
    except (struct.error, UnicodeDecodeError):
        return []
    return places
