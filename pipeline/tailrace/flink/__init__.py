"""The Flink stage: SQL and Python functions over topics, run by PyFlink in an environment of its own.

service.run          the part: prepares, starts, watches and restarts the job
service.validate     plans every transform with Flink's planner, runs nothing
config               what both are told
"""
