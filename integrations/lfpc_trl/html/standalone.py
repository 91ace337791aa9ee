"""Shared parts of reports: self-contained HTML files.

Styles, plots (inline SVG) and pictures (JPEG in base64) are all in the file. Jinja escapes every value except
the plots made here.
"""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholder colours for Matplotlib, replaced with CSS variables so that plots follow dark mode.
_VARIABLES = ("ink", "line", "stage1", "stage2", "control", "target", "warm")
COLOURS = {name: "#" + f"{number:02x}" * 3 for number, name in enumerate(_VARIABLES, start=1)}
"""CSS variable name to placeholder colour."""


def template(name: str) -> jinja2.Template:
    """Load a template of the package; rendering fails if a value is missing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def draw(plot: Callable[[Axes], None], salt: str, *, size: tuple[float, float] = (3.6, 2.15)) -> Markup:
    """Draw a small plot as inline SVG, without a frame and with faint horizontal lines.

    Args:
        plot: draws into the axes; only numbers and fixed words, because the SVG is not escaped.
        salt: seeds the ids inside the SVG; must differ for each plot of a page.
        size: width and height in inches; the page scales it to its column.

    Returns:
        The SVG; equal numbers give equal bytes.
    """
    options: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 9.5,
        "font.family": "sans-serif",
        "axes.labelsize": 8.5,
        "axes.labelcolor": COLOURS["ink"],
    }
    with mpl.rc_context(options):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(COLOURS["line"])
        axes.tick_params(colors=COLOURS["ink"], length=0, pad=4)
        axes.grid(axis="y", color=COLOURS["line"], linewidth=0.8)
        axes.set_axisbelow(True)
        plot(axes)
        buffer = io.StringIO()
        # No metadata, so that equal numbers give equal bytes and the file contains no URLs.
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for variable, placeholder in COLOURS.items():
        svg = svg.replace(placeholder, f"var(--{variable})")
    return Markup(svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))


def jpeg_url(jpeg: bytes) -> str:
    """A JPEG file as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
