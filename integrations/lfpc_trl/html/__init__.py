"""What the two local pages, `lfpc annotate` and `lfpc view`, share: the server, pictures in tiles, scripts and styles.

Means, and why:

* **Starlette and uvicorn** serve. Gradio with `gradio_image_annotation` was the other candidate: it hands the browser
  whole pictures (33 million pixels for 8K), has no zoom, its coordinates of large pictures have been wrong more than
  once, and it weighs 33 MB before its own dependencies.
* **OpenSeadragon** (BSD-3-Clause, vendored) shows pictures: deep zoom in tiles, which the server cuts from the
  original. The browser never loads more than it shows.
* **Boxes are our own SVG** above it. Annotorious draws on OpenSeadragon too, but it brings PixiJS, which compiles code
  from strings and so would need `unsafe-eval` in the content security policy; and it knows neither whole pixels nor
  nesting nor steps by key.
* **uPlot** (MIT, vendored) draws curves.

Nothing comes from another server: the pages work without a network.
"""  # noqa: E501 - prose
