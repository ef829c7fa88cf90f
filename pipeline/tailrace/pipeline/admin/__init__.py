"""Administration of any Kafka from the command line: topics, groups, transactions, ACLs, configs.

Everything goes over the wire through `tailrace.broker.client`; results are plain data, as `--json` prints them.
"""
