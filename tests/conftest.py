"""Only the list of fixture modules, and how Hypothesis searches.

No deadlines: a first call may compile a kernel.  CI tries the same examples every time; elsewhere each run
looks at new ones, and what it finds becomes an example of its test.
"""

import os

from hypothesis import settings

pytest_plugins = [
    "tests.fixtures.postgres",
    "tests.fixtures.broker",
    "tests.fixtures.certificates",
    "tests.fixtures.registry",
    "tests.fixtures.flink",
    "tests.fixtures.tables",
]

settings.register_profile("tailrace", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "tailrace")
