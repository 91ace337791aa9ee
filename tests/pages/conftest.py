"""Small and large pictures, rows, trajectories; a client that has the token; a browser where there is one."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from starlette.testclient import TestClient

from lfpc_trl.html.server import Access
from tests.pages.driving import Page

ROOT = Path(__file__).parents[2]
# Of a process of its own: the package need not be installed.
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")])}
SIZE = (640, 480)
SIGN = [[100, 100, 200, 150], [80, 80, 260, 190]]


def noise(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """A picture in which every pixel differs from its neighbours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_rows_file(folder: Path, count: int = 3, **columns: object) -> Path:
    """`count` rows without targets, each with a picture of its own; `columns` go into all of them."""
    lines = []
    for number in range(count):
        noise(seed=number).save(folder / f"picture-{number}.png")
        row = {
            "id": f"q{number}",
            "question": f"What is {number}?",
            "answer": "KR",
            "image": f"picture-{number}.png",
        }
        lines.append(json.dumps(row | columns))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return write_rows_file(tmp_path)


def client_of(app, access: Access, *, host: str = "127.0.0.1:8021") -> TestClient:
    """A client that has opened the printed address."""
    client = TestClient(app, base_url=f"http://{host}", headers={"origin": f"http://{host}"})
    assert client.get("/", params={"token": access.token}).status_code == 200
    return client


def jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "JPEG")
    return file.getvalue()


SCHEMA = pa.schema(
    {
        "step": pa.int32(),
        "group": pa.int32(),
        "rollout": pa.int32(),
        "row_id": pa.string(),
        "question": pa.string(),
        "choices": pa.list_(pa.string()),
        "accepted": pa.list_(pa.string()),
        "image": pa.string(),
        "image_size": pa.list_(pa.int32()),
        "messages": pa.string(),
        "thumbnails": pa.list_(pa.binary()),
        "answer": pa.string(),
        "ending": pa.string(),
        "masked": pa.bool_(),
        "boxes": pa.list_(pa.list_(pa.int32())),
        "targets": pa.list_(pa.list_(pa.list_(pa.float64()))),
        "scores": pa.map_(pa.string(), pa.float64()),
        "reward": pa.float64(),
        "advantage": pa.float64(),
    }
)

SOMETIMES = pa.schema(
    {
        "condition": pa.string(),
        "images": pa.list_(pa.string()),
        "image_sizes": pa.list_(pa.list_(pa.int32())),
        "box_images": pa.list_(pa.int32()),
        "target_images": pa.list_(pa.int32()),
    }
)
"""Columns of evaluations, and of questions about several pictures."""


def trajectory(**columns: object) -> dict[str, object]:
    """One rollout as it stands in a file: a crop on the sign and a right answer, changed by `columns`."""
    boxes = columns.get("boxes", [[70, 70, 270, 200]])
    messages = [
        {"role": "system", "content": "You answer."},
        {
            "role": "user",
            "content": [{"type": "image", "thumbnail": 0}, {"type": "text", "text": "What is 0?"}],
        },
        {"role": "assistant", "content": "<think>near</think>"},
        {"role": "tool", "content": [{"type": "image", "thumbnail": 1}]},
        {"role": "assistant", "content": "<answer>KR</answer>"},
    ]
    return {
        "step": 1,
        "group": 0,
        "rollout": 0,
        "row_id": "q0",
        "question": "What is 0?",
        "choices": None,
        "accepted": ["KR"],
        "image": "/data/picture-0.png",
        "image_size": list(SIZE),
        "messages": json.dumps(messages),
        "thumbnails": [jpeg()] * (1 + len(boxes)),
        "answer": "KR",
        "ending": "answered",
        "masked": False,
        "boxes": boxes,
        "targets": [SIGN],
        "scores": [("accuracy", 1.0), ("grounding", None)],
        "reward": 2.0,
        "advantage": 0.5,
    } | columns


def write_trajectories(path: Path, trajectories: list[dict[str, object]], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {name for each in trajectories for name in each}
    schema = pa.schema([*SCHEMA, *(field for field in SOMETIMES if field.name in named)])
    parquet.write_table(pa.Table.from_pylist(trajectories, schema=schema), path, **options)
    return path


class Server:
    """A real `lfpc annotate` or `lfpc view` in a process of its own."""

    def __init__(self, *arguments: object, port: int = 0) -> None:
        command = [sys.executable, "-m", "lfpc_trl.cli", *map(str, arguments), "--port", str(port)]
        self.process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("open ").strip()
        if not self.url:
            raise AssertionError(self.process.communicate()[1])
        self.port = int(self.url.partition("//")[2].partition("/")[0].rpartition(":")[2])

    def kill(self) -> None:
        """As the operating system does it: no handler runs."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve() -> Iterator[type[Server]]:
    started: list[Server] = []

    def start(*arguments: object, port: int = 0) -> Server:
        started.append(Server(*arguments, port=port))
        return started[-1]

    yield start
    for server in started:
        server.kill()


CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing of Chromium's own may ask a network.
CHROMIUM_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def chromium():
    """A browser of the machine, driven by Playwright.

    Not for the whole session: as long as it is there, an event loop runs, and other tests start their own.
    """
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(CHROMIUM_NAMES)} is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    pages = []

    def open_page(url, **options):
        pages.append(Page(chromium, url, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
