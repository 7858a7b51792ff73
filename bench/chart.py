"""Lines over time as an SVG picture: panels above each other with the same scales, and events.

Written by hand, since nothing is to be installed. It brings its own background, light or dark as
the reader's browser is, and stays readable at 800 pixels.
"""
import html

WIDTH, LEFT, RIGHT, TOP = 800, 64, 76, 104   # pixels; margins for numbers, labels and the titles
PANEL, GAP, BOTTOM = 200, 64, 48            # height of a panel, between two, below the last
STEP = 2.0                                  # pixels from one point of a line to the next
STYLE = """
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 }
.head { font-size: 14px; font-weight: 600 }
.small { font-size: 12px; fill: #57606a }
.back { fill: #ffffff }
.grid { stroke: #d8dee4 }
.event { stroke: #57606a; stroke-dasharray: 4 3 }
.settle { fill: #818b98; opacity: 0.13 }
path { fill: none; stroke-linejoin: round; stroke-width: 1.3; stroke: #6e9fd6 }
.l1 { stroke: #cf222e; stroke-width: 2.2 }
.l2 { stroke: #1a7f37; stroke-width: 2.2 }
.l3 { stroke: #bc6c00; stroke-width: 2.2 }
text.l1 { fill: #cf222e; stroke: none } text.l2 { fill: #1a7f37; stroke: none }
text.l3 { fill: #bc6c00; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .back { fill: #0d1117 }
  .grid { stroke: #2b323b } .event { stroke: #9198a1 } path { stroke: #4c7fb8 }
  .l1 { stroke: #ff7b72 } .l2 { stroke: #56d364 } .l3 { stroke: #e3b341 }
  text.l1 { fill: #ff7b72 } text.l2 { fill: #56d364 } text.l3 { fill: #e3b341 }
}
"""


def step_of(largest, lines):
    """The smallest round distance with which no more than this many lines fit."""
    return next(each for each in (unit * digit for unit in (0.1, 1, 10, 100, 1000, 10_000)
                                  for digit in (1, 2, 3, 5)) if largest / each <= lines)


def text(x, y, words, kind="", anchor="start"):
    """A text element."""
    return (f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">'
            f'{html.escape(words)}</text>')


def path(points, across, up, kind):
    """A line through (x, y) points, thinned to one every STEP pixels; moves are relative."""
    kept = []
    for x, y in points:
        if not kept or across(x) - kept[-1][0] >= STEP:
            kept.append((across(x), up(y)))
    places = [(round(x), round(y, 1)) for x, y in kept]
    moves = "".join(f"l{x - before:g},{y - height:.1f}" for (before, height), (x, y)
                    in zip(places, places[1:], strict=False))
    return f'<path class="{kind}" d="M{places[0][0]},{places[0][1]:g}{moves}"/>' if places else ""


def apart(places, least=14):
    """Places of labels (pixels), moved down so that no two are closer than `least`."""
    moved = {}
    for name, y in sorted(places.items(), key=lambda each: each[1]):
        moved[name] = max([y, *(other + least for other in moved.values())])
    return moved


def panel(head, lines, events, top, across, largest):
    """The elements of one panel; `lines` are (label, points), and labelled ones stand out."""
    def up(value):
        """Where a value is."""
        return top + PANEL * (1 - value / largest)
    step = step_of(largest, 5)
    levels = [step * each for each in range(int(largest / step) + 1)]
    turned = f"translate(20 {top + PANEL / 2:.0f}) rotate(-90)"
    out = [text(LEFT, top - 26, head, "head"),
           f'<text class="small" text-anchor="middle" transform="{turned}">connections</text>']
    for when, _, settle in events:
        out.append(f'<rect class="settle" x="{across(when):.1f}" y="{top}" height="{PANEL}" '
                   f'width="{across(when + settle) - across(when):.1f}"/>')
    for level in levels:
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(level):.1f}" '
                   f'y2="{up(level):.1f}"/>')
        out.append(text(LEFT - 8, up(level) + 4, f"{level:g}", "small", "end"))
    for when, _, _ in events:
        out.append(f'<line class="event" x1="{across(when):.1f}" x2="{across(when):.1f}" '
                   f'y1="{top}" y2="{top + PANEL}"/>')
    labels = [label for label, _ in lines if label]
    for label, points in sorted(lines, key=lambda each: bool(each[0])):   # these on top
        out.append(path(points, across, up, f"l{labels.index(label) + 1}" if label else ""))
    ends = apart({label: up(points[-1][1]) + 4 for label, points in lines if label and points})
    for label, y in ends.items():
        out.append(text(WIDTH - RIGHT + 6, y, label, f"l{labels.index(label) + 1}"))
    return out


def draw(title, subtitle, panels, events, seconds):
    """The picture. `panels`: (head, [(label, [(seconds, value)])]); `events`: (seconds, text,
    how long its neighbourhood is shaded)."""
    largest = 1.05 * max([1, *(y for _, lines in panels for _, points in lines for _, y in points)])
    height = TOP + len(panels) * PANEL + (len(panels) - 1) * GAP + BOTTOM

    def across(when):
        """Where a time is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * when / seconds
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
           f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
           f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
           text(16, 26, title, "title"), text(16, 45, subtitle, "small")]
    for at, (head, lines) in enumerate(panels):
        top = TOP + at * (PANEL + GAP)
        out += panel(head, lines, events, top, across, largest)
        out += [text(across(when), top - 6, words, "small", "middle") for when, words, _ in events]
    step = step_of(seconds, 10)
    for at in range(int(seconds / step) + 1):
        out.append(text(across(step * at), height - BOTTOM + 18, f"{step * at:g}", "small",
                        "middle"))
    out.append(text(across(seconds / 2), height - 10, "seconds; shaded: settling after an event",
                    "small", "middle"))
    return "\n".join([*out, "</svg>\n"])
