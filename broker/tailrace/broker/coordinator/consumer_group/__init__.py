"""Consumer groups of the consumer protocol (KIP-848): the broker assigns, members follow one heartbeat at a time.

member      what is known of one member
records     the changes of a group, as records of `__consumer_offsets`
group       the state that those records amount to, live and replayed alike
catalog     the topics that there are
draft       changes that belong together
patterns    topics by regular expression
assignors   who shall have which partition: uniform, range
reconcile   the next step of one member towards that
heartbeat   what a member says: checked, and turned into records
classic     members of such a group that speak the classic protocol
migration   a group with members becomes one of the other protocol
timers      what time does to the members
coordinator all groups
"""
