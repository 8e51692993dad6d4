"""The two scripts that the site ships and no Python package has: KaTeX draws formulas, iframe-worker searches from the disk."""

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path

CACHE = Path(".cache/site")  # below the repository
PACKAGES = {  # name and version -> SHA-512 of the archive, as npm publishes it
    "katex@0.16.22": "XCHRdUw4lf3SKBaJe4EvgqIuWwkPSo9XoeO8GjQW94Bp7TWv9hNhzZjZ+OH9yf1UmLygb7DIT5GSFQiyt16zYg==",
    "iframe-worker@1.0.4": "roeaaI+Lg1LJNfgpCjoRe/+WzEjy9+Z08LoEvu85MCPbBjwm+qXz8Ag5U05lHa6V1CysZyGzE0SOkAtSUA5q7Q==",
}
SHIPPED = {  # path on the site -> the archive and the path in it; "*": all files of a folder
    "assets/katex/katex.min.js": ("katex@0.16.22", "package/dist/katex.min.js"),
    "assets/katex/katex.min.css": ("katex@0.16.22", "package/dist/katex.min.css"),
    "assets/katex/fonts/*": ("katex@0.16.22", "package/dist/fonts/*.woff2"),
    "assets/iframe-worker/shim.js": ("iframe-worker@1.0.4", "package/shim/index.js"),
}


def shipped_files(root: Path) -> dict[str, bytes]:
    """Each file's bytes by its path on the site; archives are fetched once, by npm, and kept in `.cache/site`.

    Raises:
        RuntimeError: npm is not there or cannot fetch, or an archive is not the one that was published.
    """
    found = {}
    for target, (package, pattern) in SHIPPED.items():
        with tarfile.open(_archive(root / CACHE, package)) as archive:
            for member in archive.getmembers():
                if Path(member.name).match(pattern) and (held := archive.extractfile(member)) is not None:
                    found[target.replace("*", Path(member.name).name)] = held.read()
    return found


def _archive(cache: Path, package: str) -> Path:
    path = cache / (package.replace("@", "-") + ".tgz")
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", "--silent", package], cwd=cache, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
            raise RuntimeError(
                f"npm must fetch {package} once, but: {' '.join(said)}. Install npm, or put {path.name} into {cache}."
            ) from error
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != PACKAGES[package]:
        raise RuntimeError(
            f"{path} must have the SHA-512 {PACKAGES[package]}, got {digest}. Delete it and build again."
        )
    return path
