"""Groups of both protocols on one real log: a restart finds them, whatever was compacted and whoever came between."""

import asyncio
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from tests.unit.broker.coordinator.test_group_log import Node
from tests.unit.broker.coordinator.test_replay import GROUPS, TOPIC, CoordinatorMachine

from tailrace.broker.coordinator.consumer_group.heartbeat import Answer, Heartbeat
from tailrace.broker.coordinator.group import SyncRequest
from tailrace.broker.coordinator.internal_topic import Receipt

MEMBERS = st.sampled_from(["m", "n", "o"])
EPOCHS = st.sampled_from(["join", "go on", "acknowledge", "leave", "away"])


class BothProtocolsMachine(CoordinatorMachine):
    """The clients of the coordinators, and members of the consumer protocol in the same groups."""

    @rule(group=GROUPS, member=MEMBERS, step=EPOCHS, static=st.booleans(), pattern=st.booleans())
    def heartbeat(self, group: str, member: str, step: str, static: bool, pattern: bool) -> None:
        found = self.node.log.consumer_groups.get(group)
        progress = found.progress_of(member) if found else None
        epoch = {"join": 0, "leave": -1, "away": -2}.get(step, progress.epoch if progress else 1)
        said = Heartbeat(
            group,
            member,
            epoch,
            "i" if static else None,
            rebalance_timeout_ms=30_000 if step == "join" else -1,
            topics=frozenset({TOPIC, "later"}) if step == "join" and not pattern else None,
            pattern="l.*|t" if step == "join" and pattern else None,
            owned=frozenset(progress.assigned if progress and step == "acknowledge" else ())
            if step in ("join", "acknowledge")
            else None,
        )

        async def told() -> Answer:
            return await self.node.log.heartbeat(said)

        self.run(told())

    @rule(group=GROUPS)
    def go_on_as_classic_members(self, group: str) -> None:
        found = self.node.log.consumer_groups.get(group)
        for member_id, instance_id in self.classic_members(group).items() if found else ():
            assert found is not None
            epoch = found.progress_of(member_id).epoch
            request = SyncRequest(group, epoch, member_id, instance_id, None, None, {})
            self.run(self.node.log.sync(request))
            self.node.log.classic_heartbeat(group, epoch, member_id, instance_id)

    @invariant()
    def no_partition_has_two_members(self) -> None:
        for group in self.node.log.consumer_groups if hasattr(self, "node") else ():
            held = [p for member in group.progress.values() for p in (*member.assigned, *member.revoking)]
            assert len(held) == len(set(held))

    @rule(group=GROUPS)
    def remove_members(self, group: str) -> None:
        found = self.node.log.consumer_groups.get(group)
        if found is not None:
            leaving = [(member_id, None) for member_id in found.subscriptions]

            async def left() -> None:
                await self.node.log.leave(group, [*leaving, ("", "i")])

            self.run(left())

    @rule(group=GROUPS)
    def delete_consumer_group(self, group: str) -> None:
        found = self.node.log.consumer_groups.get(group)
        if found is not None and not found.subscriptions:
            self.run(self.node.log.delete_group(group))

    @rule(there=st.booleans())
    def change_topics(self, there: bool) -> None:
        if there and self.node.topics.find("later") is None:
            self.node.topics.create("later", 1, {})
        elif self.node.topics.find("later") is not None:
            self.node.topics.delete("later")

    @rule(group=GROUPS)
    def no_group_is_of_two_kinds(self, group: str) -> None:
        log = self.node.log
        assert log.groups.get(group) is None or log.consumer_groups.get(group) is None


def test_nobody_is_answered_before_what_the_answer_says_is_durable(tmp_path: Path) -> None:
    async def story() -> None:
        node = Node(tmp_path)
        node.topics.create(TOPIC, 1, {})
        on_disk, durable = asyncio.Event(), node.log._topic.durable

        async def slow(receipt: Receipt) -> None:
            await on_disk.wait()
            await durable(receipt)

        with patch.object(node.log._topic, "durable", slow):
            join = Heartbeat(
                "a", "m", 0, rebalance_timeout_ms=1, topics=frozenset({TOPIC}), owned=frozenset()
            )
            # the second one changes nothing, but tells what the first one changed
            answers = [
                asyncio.create_task(node.log.heartbeat(said)) for said in (join, Heartbeat("a", "m", 1))
            ]
            finished, _ = await asyncio.wait(answers, timeout=0.05)
            assert not finished
            on_disk.set()
            assert [answer.epoch for answer in await asyncio.gather(*answers)] == [1, 1]
        await node.close()

    asyncio.run(story())


TestLiveStateOfBothProtocolsIsReplayedState = BothProtocolsMachine.TestCase
TestLiveStateOfBothProtocolsIsReplayedState.settings = settings(
    max_examples=25, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
