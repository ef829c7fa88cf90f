"""Jepsen's Kafka workload against a broker of ours: concurrent clients, faults, and a checker of what they saw."""
