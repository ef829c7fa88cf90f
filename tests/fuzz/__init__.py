"""A mutation fuzzer for everything that reads bytes of others: see `python -m tests.fuzz --help`."""
