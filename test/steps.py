"""The steps of each tier. Order is fail-fast: cheap and basic first."""
import os

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Step:
    """name: unique; command: argv; limit: seconds; gtest: counted by its report; counts: prints a line of counts, else the exit
    code is the one test; env: additions to the environment."""

    def __init__(self, name, command, limit=120, gtest=False, counts=True, env=None):
        self.name, self.command, self.limit, self.gtest, self.counts = name, command, limit, gtest, counts
        self.env = env or {}


def unit_tests(build, flavour):
    return [Step(f"unit {flavour} {name}", [os.path.join(build, flavour, "test/gtest", f"gtest_{name}")], limit=180, gtest=True)
            for name in ("base", "softefa", "uct_srd")]


def make_tests(build, flavour):
    return Step(f"build tests {flavour}", [os.path.join(TOP, "test/build"), flavour, build], limit=900, counts=False)


def user(build, install):
    return [make_tests(build, "release"), *unit_tests(build, "release")]


def ci(build, install):
    return [make_tests(build, "asan"), *unit_tests(build, "asan")]


TIERS = {"user": user, "ci": ci}
