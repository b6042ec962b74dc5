"""Drawings as inline SVG, by hand: they need no library, and the page no other file."""

from collections.abc import Sequence

from service.inference.labels import CORE_EMOTIONS

COLOURS = {"angry": "#d55e00", "happy": "#e69f00", "neutral": "#7f7f7f", "sad": "#0072b2"}
"""Okabe and Ito's, which the colour-blind tell apart."""

_CELL, _MARGIN = 52, 64
_SIDE = 320


def confusion_matrix(counts: Sequence[Sequence[int]]) -> str:
    """Truth by row, answer by column; each cell's share of its row as shade and number."""
    side = _MARGIN + _CELL * len(counts)
    parts = [_open(side, side)]
    for i, row in enumerate(counts):
        parts.append(_text(_MARGIN - 6, _MARGIN + _CELL * (i + 0.55), CORE_EMOTIONS[i], "end"))
        middle = _MARGIN + _CELL * (i + 0.5)
        parts.append(_text(middle, _MARGIN - 8, CORE_EMOTIONS[i], "middle"))
        for j, count in enumerate(row):
            share = count / max(1, sum(row))
            x, y = _MARGIN + _CELL * j, _MARGIN + _CELL * i
            parts.append(
                f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="#0072b2" '
                f'fill-opacity="{share:.2f}" stroke="#ccc"><title>{count} clips</title></rect>'
            )
            colour = "#fff" if share > 0.6 else "#000"
            centre = x + _CELL / 2, y + _CELL * 0.57
            parts.append(_text(*centre, f"{share:.2f}", "middle", colour))
    return "".join([*parts, "</svg>"])


def scatter(points: Sequence[Sequence[float]], emotion: Sequence[str]) -> str:
    """Points in the plane, coloured by emotion; both axes have the same scale."""
    middle = [(min(axis) + max(axis)) / 2 for axis in zip(*points, strict=True)]
    reach = max(1e-6, *(abs(v - m) for p in points for v, m in zip(p, middle, strict=True)))
    scale = (_SIDE / 2 - 8) / reach
    parts = [_open(_SIDE, _SIDE + 20)]
    parts.append(f'<rect width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#ccc"/>')
    for (x, y), name in zip(points, emotion, strict=True):
        across, down = _SIDE / 2 + (x - middle[0]) * scale, _SIDE / 2 - (y - middle[1]) * scale
        parts.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{COLOURS[name]}" '
            'fill-opacity="0.7"/>'
        )
    for place, (name, colour) in enumerate(COLOURS.items()):
        parts.append(_text(80 * place + 4, _SIDE + 15, name, "start", colour))
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#000") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
