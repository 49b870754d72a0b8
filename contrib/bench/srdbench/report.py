"""Tables for a terminal and for Markdown, from a result.

Owns: wording and layout. Works from the result alone (the same object that is written as JSON), so that a saved result
can be printed again and a table never shows what the JSON does not hold.

A cell is the median over the passes, then min..max. Ratios are taken pass by pass and then summarised the same way;
they are not quotients of the medians beside them.
"""

import math

from . import campaign
from .cases import size_text

WIDTH = 100
SERIES_TITLES = {"verbs": "raw verbs", "shm": "raw shm"}
TABLES = (("latency", "us", "One-way latency, microseconds", 1.0),
          ("bandwidth", "mib_s", "Bandwidth, MiB/s", 1.0),
          ("bandwidth", "msg_s", "Message rate, millions per second", 1e-6),
          ("put", "mib_s", "Put (ucp_put_bw), MiB/s", 1.0),
          ("get", "us", "Get (ucp_get), microseconds", 1.0))


def significant(number, digits, towards=round):
    """The number with so many significant digits, whole digits never cut off: 0.0512, 4.36, 228, 34674."""
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    scale = 10 ** decimals
    # The product is rounded once more so that 0.29 * 100 does not become 28.999 and then 28.
    return "%.*f" % (decimals, towards(round(number * scale, 6)) / scale)


def cell(summary, digits=3):
    """'median min..max', or a dash. The ends are rounded outwards: the range always holds the median beside it."""
    if summary is None:
        return "-"
    median, least, most = summary
    if least == most:
        return significant(median, digits)
    return "%s %s..%s" % (significant(median, digits), significant(least, 2, math.floor),
                          significant(most, 2, math.ceil))


def _entry_cell(entry, field, scale):
    if entry is None:
        return ""
    if entry["status"] != "ok":
        return entry["status"]
    summary = campaign.spread(campaign.values(entry, field))
    return cell(tuple(value * scale for value in summary) if summary else None)


def columns_of(entries, metric):
    """Series of a metric in the order they were run."""
    seen = []
    for entry in entries:
        if entry["metric"] == metric and entry["series"] not in seen:
            seen.append(entry["series"])
    return seen


def title_of(result, series):
    return result["transport"] if series == "srd" else SERIES_TITLES.get(series, series)


def build_tables(result):
    """[(title, header, rows, foot)], every cell a string."""
    tables = []
    for metric, field, title, scale in TABLES:
        entries = [entry for entry in result["cases"] if entry["metric"] == metric and not entry["layout"]]
        sizes = sorted({entry["size"] for entry in entries})
        if field == "msg_s":
            sizes = sizes[:1]
        if not sizes:
            continue
        series = columns_of(entries, metric)
        rivals = [name for name in series if name != "srd"] if "srd" in series else []
        header = ["size"] + [title_of(result, name) for name in series]
        header += ["%s/%s" % (title_of(result, "srd"), title_of(result, name).replace("raw ", "")) for name in rivals]
        rows = []
        for size in sizes:
            row = [size_text(size)]
            row += [_entry_cell(campaign.find(entries, name, metric, size), field, scale) for name in series]
            mine = campaign.find(entries, "srd", metric, size)
            row += [cell(campaign.combine(mine, campaign.find(entries, name, metric, size), lambda a, b: a / b, field), 2)
                    for name in rivals]
            rows.append(row)
        tables.append((title, header, rows))
    return tables


def render(header, rows, width=WIDTH):
    """Aligned columns. Ratio columns that do not fit go into a second block under the first."""
    split = len(header)
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    while split > 2 and sum(widths[:split]) + 2 * (split - 1) > width:
        split -= 1
    lines = []
    for first, last in ((1, split), (split, len(header))):
        chosen = [0] + list(range(first, last))
        if len(chosen) == 1:
            continue
        if lines:
            lines.append("")
        for row in [header] + rows:
            text = row[0].rjust(widths[0]) + "".join("  " + row[i].ljust(widths[i]) for i in chosen[1:])
            lines.append(text.rstrip())
    return lines


def verdict_table(result):
    """(header, rows) of the bounds."""
    rows = []
    for one in result.get("verdicts", []):
        unit = "x" if one["operation"] == "ratio" else " us"
        sign = "<=" if one["maximum"] else ">="
        bound = "%s %g%s" % (sign, one["bound"], unit) if one["bound"] is not None else "-"
        aim = "%s %g%s" % (sign, one["aim"], unit) if one["aim"] is not None else "-"
        rows.append([one["what"], cell(one["summary"]), bound, one["verdict"], aim])
    header = ["bound", "measured", "wanted", "verdict", "aim"]
    if not any(one["aim"] is not None for one in result.get("verdicts", [])):
        return header[:-1], [row[:-1] for row in rows]
    return header, rows


def speed_rows(result):
    """(header, rows) of everything that a preset with bounds measured."""
    large = result["preset"] == "softefa"
    rows = []
    for entry in result["cases"]:
        rate = entry["metric"] in ("bandwidth", "put", "get")
        rows.append([entry["name"], _entry_cell(entry, "us", 1.0),
                     _entry_cell(entry, "mib_s" if large else "msg_s", 1.0 if large else 1e-6) if rate else ""])
        if entry["metric"] == "in turns":
            rows.append(["  its turns of raw shm", _entry_cell(entry, "raw_us", 1.0), ""])
    return ["case", "us" if large else "us per message", "MiB/s" if large else "million messages/s"], rows


def notes(result):
    """What a reader must know to trust or distrust the figures."""
    machine = result["machine"]
    lines = ["median min..max of %d interleaved passes; ratios pass by pass; UCX_TLS of the transport: %s"
             % (result["passes"], result["transport"]),
             "%s, %s CPUs%s, cores %s; Linux %s; %s" %
             (machine["cpu"], machine["cpus"], " (virtual machine)" if machine["virtual_machine"] else "",
              ",".join(map(str, machine["cores"])), machine["kernel"], machine["date"])]
    if machine["cores"][0] == machine["cores"][1]:
        lines.append("WARNING: only one core: both sides of every pair shared it, latencies mean little")
    if max(machine["load_before"], result.get("load_busiest", 0.0)) > 0.7 * machine["cpus"] + 1.5:
        lines.append("WARNING: something else was busy (load average %.1f): trust ratios, not times" %
                     max(machine["load_before"], result.get("load_busiest", 0.0)))
    reasons = {}
    for entry in result["cases"]:
        if entry["status"] == "not possible":
            reasons.setdefault(entry["reason"], []).append(entry["name"])
    lines += ["not measured: %s: %s" % (", ".join(names), reason) if reason.startswith("missing")
              else "not possible: %s: %s" % (", ".join(names), reason) for reason, names in reasons.items()]
    lines += ["FAILED: %s (%s): %s" % (one["case"], one["when"], one["reason"]) for one in result["failures"]]
    return lines


def text(result):
    """The whole report for a terminal."""
    lines = []
    if "verdicts" in result:
        lines += render(*speed_rows(result)) + [""] + render(*verdict_table(result))
    else:
        for title, header, rows in build_tables(result):
            lines += [title] + render(header, rows) + [""]
    while lines and not lines[-1]:
        lines.pop()
    lines.append("")
    for note in notes(result):
        lines += _wrap(note)
    lines.append("took %.0f s" % result["seconds"])
    return "\n".join(lines) + "\n"


def _wrap(note, width=WIDTH):
    lines, current = [], ""
    for word in note.split():
        if current and len(current) + 1 + len(word) > width:
            lines.append(current)
            current = "   " + word
        else:
            current = (current + " " + word) if current else word
    return lines + [current] if current else lines


def markdown_table(header, rows):
    return (["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
            + ["| " + " | ".join(row) + " |" for row in rows])


def markdown(result):
    """The report for docs/performance.md: date, machine, command, tables, every pass."""
    machine = result["machine"]
    lines = ["## %s, %s" % (result["preset"], machine["date"]), "",
             "- Command: `%s`" % machine["command"]]
    lines += ["- " + note for note in notes(result)]
    if machine.get("commit"):
        lines.append("- Commit: %s" % machine["commit"])
    lines.append("- Packages: " + ", ".join("%s %s" % pair for pair in machine["packages"].items()))
    if machine["settings"]:
        lines.append("- Settings: " + " ".join("`%s=%s`" % pair for pair in machine["settings"].items()))
    lines.append("")
    if "verdicts" in result:
        lines += markdown_table(*verdict_table(result)) + [""] + markdown_table(*speed_rows(result)) + [""]
    else:
        for title, header, rows in build_tables(result):
            lines += ["### " + title, ""] + markdown_table(header, rows) + [""]
    lines += ["<details><summary>Every pass, microseconds per message</summary>", ""]
    header = ["case", "messages a pass"] + ["%d" % (i + 1) for i in range(result["passes"])]
    rows = []
    for entry in result["cases"]:
        if entry["passes"]:
            figures = [significant(us, 3) if us is not None else "failed" for us in campaign.values(entry)]
            figures += [""] * (result["passes"] - len(figures))
            rows.append([entry["name"], str(entry["iterations"])] + figures)
    lines += markdown_table(header, rows) + ["", "</details>", ""]
    return "\n".join(lines)
