"""Latency and bandwidth over message size as one SVG, from a result. No library: an SVG is text.

Owns: scales, ticks, colours. Both axes are logarithmic. Every series is a line through the medians with a bar from min
to max, and its name at the end of the line; colours are told apart by people who see no red or green, too.
"""

import math
from xml.sax.saxutils import escape

from . import campaign
from .report import columns_of, title_of
from .cases import size_text

COLOURS = {"srd": "#0072b2", "tcp": "#d55e00", "verbs": "#444444", "posix": "#009e73", "sysv": "#56b4e9",
           "shm": "#cc79a7"}
PANEL_WIDTH, PANEL_HEIGHT = 380, 300
LEFT, TOP, RIGHT, BOTTOM = 66, 60, 84, 56
PANELS = (("latency", "us", "One-way latency", "microseconds, lower is better"),
          ("bandwidth", "mib_s", "Bandwidth", "MiB/s, higher is better"),
          ("put", "mib_s", "Put bandwidth", "MiB/s, higher is better"),
          ("get", "us", "Get, one at a time", "microseconds, lower is better"))


def decades(least, most):
    """Powers of ten that enclose the range, at least one decade."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return low, max(high, low + 1)


def points_of(result, series, metric, field):
    """[(size, (median, min, max))] of a series, smallest size first; the tables' tests only."""
    found = []
    for entry in result["cases"]:
        if entry["series"] == series and entry["metric"] == metric and not entry["layout"]:
            summary = campaign.spread(campaign.values(entry, field))
            if summary and summary[1] > 0:
                found.append((entry["size"], summary))
    return sorted(found)


def _spread_labels(wanted, gap=13.0):
    """Label heights moved apart so that none covers another: {name: y}."""
    placed, last = {}, -1e9
    for name, y in sorted(wanted.items(), key=lambda item: item[1]):
        last = max(y, last + gap)
        placed[name] = last
    return placed


def _tick_text(power):
    return "%g" % (10.0 ** power) if power < 4 else "%dk" % (10 ** (power - 3)) if power < 6 else "%gM" % 10 ** (power - 6)


def _panel(result, x0, metric, field, title, unit):
    series = [(name, points_of(result, name, metric, field)) for name in columns_of(result["cases"], metric)]
    series = [(name, points) for name, points in series if points]
    if not series:
        return []
    sizes = sorted({size for _, points in series for size, _ in points})
    low, high = decades(min(s[1] for _, p in series for _, s in p), max(s[2] for _, p in series for _, s in p))
    span = math.log2(sizes[-1] / sizes[0]) or 1.0

    def at_x(size):
        return x0 + LEFT + (math.log2(size / sizes[0]) / span if len(sizes) > 1 else 0.5) * PANEL_WIDTH

    def at_y(value):
        return TOP + PANEL_HEIGHT * (1.0 - (math.log10(value) - low) / (high - low))

    out = ['<text x="%.0f" y="%d" class="title">%s</text>' % (x0 + LEFT, TOP - 26, title),
           '<text x="%.0f" y="%d">%s</text>' % (x0 + LEFT, TOP - 10, unit)]
    for power in range(low, high + 1):
        y = at_y(10.0 ** power)
        out.append('<path class="grid" d="M%.1f %.1fH%.1f"/>' % (x0 + LEFT, y, x0 + LEFT + PANEL_WIDTH))
        out.append('<text x="%.1f" y="%.1f" class="right">%s</text>' % (x0 + LEFT - 6, y + 4, _tick_text(power)))
    for size in sizes:
        out.append('<path class="grid" d="M%.1f %dV%d"/>' % (at_x(size), TOP, TOP + PANEL_HEIGHT))
        out.append('<text x="%.1f" y="%d" class="middle">%s</text>' % (at_x(size), TOP + PANEL_HEIGHT + 18, size_text(size)))
    out.append('<text x="%.1f" y="%d" class="middle">message size</text>'
               % (x0 + LEFT + PANEL_WIDTH / 2, TOP + PANEL_HEIGHT + 38))
    labels = {}
    for name, points in series:
        colour = COLOURS.get(name, "#000000")
        line = " ".join("%.1f,%.1f" % (at_x(size), at_y(summary[0])) for size, summary in points)
        out.append('<polyline points="%s" stroke="%s"/>' % (line, colour))
        for size, (median, least, most) in points:
            x = at_x(size)
            out.append('<path d="M%.1f %.1fV%.1f" stroke="%s" class="bar"/>' % (x, at_y(least), at_y(most), colour))
            out.append('<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>' % (x, at_y(median), colour))
        labels.setdefault(points[-1][0], {})[name] = at_y(points[-1][1][0]) + 4
    for size, group in labels.items():
        for name, y in _spread_labels(group).items():
            out.append('<text x="%.1f" y="%.1f" style="fill:%s" class="name">%s</text>'
                       % (at_x(size) + 8, y, COLOURS.get(name, "#000000"), escape(title_of(result, name))))
    return out


def svg(result):
    """The picture, as text."""
    panels = [lines for lines in (_panel(result, 0, *panel) for panel in PANELS) if lines]
    width = max(2, len(panels)) * (LEFT + PANEL_WIDTH + RIGHT)
    height = TOP + PANEL_HEIGHT + BOTTOM + 18
    machine = result["machine"]
    foot = "%s; median and min..max of %d interleaved passes; %s" % (machine["cpu"], result["passes"], machine["date"])
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">'
             % (width, height, width, height),
             "<style>text{font:12px sans-serif;fill:#333}.title{font-size:15px;font-weight:bold}.right{text-anchor:end}"
             ".middle{text-anchor:middle}.grid{stroke:#ddd;fill:none}polyline{fill:none;stroke-width:2}"
             ".bar{stroke-width:5;stroke-opacity:.35}.name{font-weight:bold}</style>",
             '<rect width="100%" height="100%" fill="#fff"/>']
    for index, panel in enumerate(panels):
        lines += ['<g transform="translate(%d)">' % (index * (LEFT + PANEL_WIDTH + RIGHT))] + panel + ["</g>"]
    lines.append('<text x="%d" y="%d">%s</text></svg>' % (LEFT, height - 12, escape(foot)))
    return "\n".join(lines) + "\n"
