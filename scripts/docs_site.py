"""MkDocs hooks: pages from outside docs/, and links written for GitHub.

MkDocs calls the functions by their names (see `hooks` in mkdocs.yml).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "https://github.com/safetrain/safetrain/blob/main/"
# Files of the repository that become pages, by their path.
PAGES = {
    "README.md": "index.md",
    "README.pt.md": "pt/index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
API = "# Python API\n\n::: safetrain\n"

_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/ and the API reference."""
    for place, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / place)))
    files.append(File.generated(config, "api.md", content=API))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    place = next((p for p, name in PAGES.items() if name == here), f"docs/{here}")
    parts = _FENCE.split(markdown)
    for i, part in enumerate(parts):
        if i % 2:  # a code block; ` tested` marks those that the tests run
            parts[i] = part.replace("```sh tested\n", "```sh\n", 1)
        else:
            parts[i] = _LINK.sub(lambda m: f"]({_target(m[1], place, here)})", part)
    return "".join(parts)


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Set the page's own language, since the theme has one for the whole site."""
    portuguese = page.file.src_uri.startswith("pt/")
    return output.replace('<html lang="en"', '<html lang="pt-PT"', 1) if portuguese else output


def _target(link: str, place: str, here: str) -> str:
    """Return the target on the site of a link in the file `place`, which is the page `here`."""
    path, hash_, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
    page = PAGES.get(target) or target.removeprefix("docs/")
    if page == target:  # neither a page nor in docs/
        return SOURCE + target + hash_ + anchor if (ROOT / target).exists() else link
    return posixpath.relpath(page, posixpath.dirname(here) or ".") + hash_ + anchor
