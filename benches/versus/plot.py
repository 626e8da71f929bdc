"""Line plots as SVG, small enough for a README."""

import math
from html import escape

COLOURS = ["#1f6feb", "#d1242f", "#2da44e", "#9a6700", "#8250df", "#57606a", "#bf3989", "#0a7d91"]
WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50


def ticks(low, high, log):
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1,) if len(decades) > 3 else (1, 2, 5)
        return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high * 1.0001]
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def number(value):
    if value >= 1000:
        return f"{value / 1000:g}k" if value < 1e6 else f"{value / 1e6:g}M"
    return f"{value:g}"


def lines(path, title, x_name, y_name, series, log_x=True, log_y=False):
    """`series` is [(name, [(x, y), …]), …]; dashed where the name ends with `*`."""
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = (min(ys) / 1.3, max(ys) * 1.3) if log_y else (0, max(ys) * 1.08)
    if x_low == x_high:
        x_low, x_high = x_low / 2, x_high * 2

    def place(value, low, high, log, begin, size):
        scale = math.log10 if log else float
        return begin + size * (scale(value) - scale(low)) / (scale(high) - scale(low))

    def at(x, y):
        return (
            place(x, x_low, x_high, log_x, LEFT, WIDTH - LEFT - RIGHT),
            place(y, y_low, y_high, log_y, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT),
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for x in ticks(x_low, x_high, log_x):
        left, bottom = at(x, y_low or 0) if not log_y else at(x, y_low)
        out.append(f'<path d="M{left:.1f} {TOP}V{bottom:.1f}" stroke="#eee"/>')
        out.append(f'<text x="{left:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{number(x)}</text>')
    for y in ticks(y_low, y_high, log_y):
        left, bottom = at(x_low, y)
        out.append(f'<path d="M{left:.1f} {bottom:.1f}H{WIDTH - RIGHT}" stroke="#eee"/>')
        out.append(f'<text x="{left - 6:.1f}" y="{bottom + 4:.1f}" text-anchor="end">{number(y)}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="{middle_x}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_name)}</text>')
    out.append(f'<text transform="translate(18 {middle_y}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>')
    for place_of, (name, points) in enumerate(series):
        colour = COLOURS[place_of % len(COLOURS)]
        dash = ' stroke-dasharray="5 4"' if name.endswith("*") else ""
        path_points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        out.append(f'<polyline points="{path_points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (at(*point) for point in points)]
        y = TOP + 10 + 20 * place_of
        out.append(f'<path d="M{WIDTH - RIGHT + 15} {y}h22" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{WIDTH - RIGHT + 42}" y="{y + 4}">{escape(name.rstrip("*"))}</text>')
    out.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")
