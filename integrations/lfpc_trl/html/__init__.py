"""Shared parts of the local pages, `lfpc annotate` and `lfpc view`: server, picture tiles, scripts and styles.

Libraries, and why:

* **Starlette and uvicorn** are the server. The alternative was Gradio with `gradio_image_annotation`: it sends whole
  pictures to the browser (33 million pixels for 8K), has no zoom, has had wrong coordinates for large pictures more
  than once, and takes 33 MB without its own dependencies.
* **OpenSeadragon** (BSD-3-Clause, vendored) shows pictures with deep zoom, in tiles that the server cuts from the
  original. The browser loads only what it shows.
* **Boxes are our own SVG** on top. Annotorious also draws on OpenSeadragon, but it depends on PixiJS, which compiles
  code from strings and so needs `unsafe-eval` in the content security policy; and it supports neither whole pixels
  nor nesting nor moves by keyboard.
* **uPlot** (MIT, vendored) draws curves.

Nothing is loaded from other servers: the pages work without a network.
"""  # noqa: E501 - prose
