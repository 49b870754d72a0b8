"""Reads what callgrind writes, and turns two runs of different length into instructions per message.

Owns: the callgrind output format (version 1, as valgrind 3.x writes it), the sorting of shared objects into parts, and
the difference. Refuses to know: how the runs were made.

Only self costs are added up: each instruction belongs to the object whose text it is. A `calls=` line is followed by
the cost of the whole call; that is kept apart, because adding it would count instructions twice. What libc costs on
behalf of a part is taken from those calls: libc's memcpy and malloc do not call back.

    CG-1  The self costs of a file add up to the total that the file states, or the file is refused: a line that was
          misunderstood can not go unnoticed.
    CG-2  Everything is counted: what fits no part is `other`, never dropped.
"""

import collections
import os
import re

PARTS = (
    # part, objects by base name
    ("transport", re.compile(r"libuct_srd|libuct\.so|libucs\.so")),
    ("verbs", re.compile(r"libibverbs|libefa")),
    ("softefa", re.compile(r"libsoftefa")),
    ("perftest", re.compile(r"ucx_perftest|libucxperf")),
    ("ucp", re.compile(r"libucp\.so")),
    ("libc", re.compile(r"libc\.so|libc-\d|ld-linux|libpthread|libm\.so")),
    ("other", re.compile(r"")),
)
PART_NAMES = tuple(name for name, _ in PARTS)

_NAME = re.compile(r"\((\d+)\)(?: (.*))?$")
# Which table of short names a key uses: objects, files and functions are numbered apart.
_SPACES = {"ob": "ob", "cob": "ob", "fl": "fl", "fi": "fl", "fe": "fl", "cfi": "fl", "cfl": "fl",
           "fn": "fn", "cfn": "fn"}


class FormatError(Exception):
    """The file is not what callgrind is known to write."""


class Profile:
    """Costs of one thread of one run. Keys are (object path, function name)."""

    def __init__(self):
        self.self_cost = collections.Counter()  # instructions in the function itself
        self.calls = collections.Counter()      # times the function was called
        self.call_cost = collections.Counter()  # (caller key, callee key) -> instructions of the callee and below
        self.total = 0

    def add(self, other):
        self.self_cost.update(other.self_cost)
        self.calls.update(other.calls)
        self.call_cost.update(other.call_cost)
        self.total += other.total


def part_of(path):
    """The part an object belongs to (CG-2)."""
    name = os.path.basename(path)
    return next(part for part, pattern in PARTS if pattern.search(name))


class _Reader:
    """State while reading: what the current lines are about."""

    def __init__(self):
        self.profile = Profile()
        self.names = {"ob": {}, "fl": {}, "fn": {}}
        self.current = {"ob": "???", "fl": "???", "fn": "???"}
        self.callee = {}            # cob and cfn given since the last calls line
        self.positions = 1          # numbers before the costs on a cost line
        self.event = 0              # index of Ir among the costs
        self.call_count = None      # set by a calls line: the next cost line is the call's
        self.skip_line = False      # set by a jump line: the next line is only a position
        self.stated = None

    def name(self, key, text):
        """Resolves '(12) name', which defines, and '(12)', which refers."""
        match = _NAME.match(text)
        if not match:
            return text
        table = self.names[_SPACES[key]]
        if match.group(2) is not None:
            table[match.group(1)] = match.group(2)
        try:
            return table[match.group(1)]
        except KeyError:
            raise FormatError("(%s) of %s is used before it is defined" % (match.group(1), key)) from None

    def line(self, text):
        if self.skip_line:
            self.skip_line = False
        elif text[0].isdigit() or text[0] in "+-*":
            self.cost(text)
        elif ":" in text and ("=" not in text or text.index(":") < text.index("=")):
            self.header(*text.split(":", 1))
        elif "=" in text:
            self.assignment(*text.split("=", 1))
        else:
            raise FormatError("unknown line: %s" % text[:80])

    def header(self, key, value):
        if key == "positions":
            self.positions = len(value.split())
        elif key == "events":
            if "Ir" not in value.split():
                raise FormatError("no instruction counts in: %s" % value.strip())
            self.event = value.split().index("Ir")
        elif key in ("summary", "totals"):
            self.stated = int(value.split()[self.event])

    def assignment(self, key, value):
        if key == "calls":
            self.call_count = int(value.split()[0])
        elif key in ("jump", "jcnd"):
            self.skip_line = True
        elif key in ("ob", "fl", "fi", "fe", "fn"):
            self.current[_SPACES[key]] = self.name(key, value)
        elif key in ("cob", "cfi", "cfl", "cfn"):
            self.callee[_SPACES[key]] = self.name(key, value)

    def cost(self, text):
        fields = text.split()
        index = self.positions + self.event
        amount = int(fields[index]) if index < len(fields) else 0
        caller = (self.current["ob"], self.current["fn"])
        if self.call_count is None:
            self.profile.self_cost[caller] += amount
            return
        callee = (self.callee.get("ob", self.current["ob"]), self.callee.get("fn", "???"))
        self.profile.calls[callee] += self.call_count
        self.profile.call_cost[caller, callee] += amount
        self.call_count, self.callee = None, {}


def parse(lines):
    """The profile in the lines of one file (CG-1)."""
    reader = _Reader()
    for number, raw in enumerate(lines, 1):
        text = raw.rstrip("\n")
        if not text or text.startswith("#"):
            continue
        try:
            reader.line(text)
        except (ValueError, IndexError) as err:
            raise FormatError("line %d: %s: %s" % (number, err, text[:80])) from err
    profile = reader.profile
    profile.total = sum(profile.self_cost.values())
    if reader.stated is None:
        raise FormatError("no summary: the run was cut short")
    if profile.total != reader.stated:
        raise FormatError("self costs add up to %d, the file says %d" % (profile.total, reader.stated))
    return profile


def parse_file(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return parse(file)


def by_part(profile):
    """{part: instructions}, every part present."""
    parts = dict.fromkeys(PART_NAMES, 0)
    for (path, _), cost in profile.self_cost.items():
        parts[part_of(path)] += cost
    return parts


def by_object(profile):
    """{base name of object: instructions}"""
    objects = collections.Counter()
    for (path, _), cost in profile.self_cost.items():
        objects[os.path.basename(path)] += cost
    return objects


def libc_callers(profile):
    """{part: instructions libc spends in calls made by that part}; calls from libc to libc are inside of those."""
    parts = dict.fromkeys(PART_NAMES, 0)
    for ((caller, _), (callee, _)), cost in profile.call_cost.items():
        if part_of(callee) == "libc" and part_of(caller) != "libc":
            parts[part_of(caller)] += cost
    return parts


def per_message(short, long, messages):
    """{key: (long - short) / messages} of two mappings; a key that one side lacks counts as zero there."""
    return {key: (long.get(key, 0) - short.get(key, 0)) / messages for key in set(short) | set(long)}


def hottest(short, long, messages, parts, least=0.5):
    """[(part, function, instructions per message, calls per message)], costliest first; functions below `least` left out."""
    costs = per_message(short.self_cost, long.self_cost, messages)
    calls = per_message(short.calls, long.calls, messages)
    found = [(part_of(path), function, cost, calls.get((path, function), 0.0))
             for (path, function), cost in costs.items() if part_of(path) in parts and cost >= least]
    return sorted(found, key=lambda one: -one[2])
