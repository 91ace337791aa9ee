"""What reports share: HTML files that need nothing beside themselves.

Everything a reader sees is in the file: styles, drawings (inline SVG) and pictures (JPEG in base64). Jinja
escapes every value; the only strings exempt from that are the drawings made here.
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

# Matplotlib draws in colours that stand for CSS variables, so that drawings follow dark mode.
_VARIABLES = ("ink", "line", "stage1", "stage2", "control", "target", "warm")
COLOURS = {name: "#" + f"{number:02x}" * 3 for number, name in enumerate(_VARIABLES, start=1)}
"""A variable of the style: the colour to draw in for it."""


def template(name: str) -> jinja2.Template:
    """A template of the package; a value that it uses and is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def draw(plot: Callable[[Axes], None], salt: str, *, size: tuple[float, float] = (3.6, 2.15)) -> Markup:
    """A small drawing as inline SVG: no frame, faint lines across.

    Args:
        plot: draws into the axes, numbers and fixed words only: the drawing is not escaped again.
        salt: makes the names inside the SVG; different for each drawing of a page.
        size: width and height in inches; the page stretches it to its column.

    Returns:
        The same bytes for the same numbers.
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
        # Without metadata: the same numbers give the same bytes, and no address stands in the file.
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for variable, stand_in in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    return Markup(svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))


def jpeg_url(jpeg: bytes) -> str:
    """The bytes of a JPEG file as an address that holds them."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
