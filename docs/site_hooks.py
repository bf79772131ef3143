"""Hooks of mkdocs: every page is in the navigation, and a link to a directory leads to its first page."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(?=[)#])")
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".sh": "bash", ".conf": "nginx"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put what `nav` does not name at its end: pages of docs/, the examples, the decisions."""
    source = Path(config.docs_dir)
    assert config.nav is not None
    named = set(_leaves(config.nav))
    pages = [f"docs/{page.name}" for page in sorted((source / "docs").glob("*.md"))]
    if more := [page for page in pages if page not in named]:
        config.nav.append({"More": more})
    examples = [f"{directory}/README.md" for directory in _examples(source)]
    config.nav.append({"Examples": [{PurePosixPath(page).parent.name: page} for page in examples]})
    decisions = sorted((source / "docs/decisions").glob("*.md"))
    config.nav.append({"Decisions": [f"docs/decisions/{page.name}" for page in decisions]})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Give an example that has no page of its own one that shows its files."""
    source = Path(config.docs_dir)
    for directory in _examples(source):
        page = f"{directory}/README.md"
        if not (source / page).exists():
            content = _listing(source / directory, PurePosixPath(directory).name)
            files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Let links to directories, which a forge lists, lead to the page that is there."""
    here = PurePosixPath(page.file.src_uri).parent

    def to_page(match: re.Match[str]) -> str:
        target = match[1].rstrip("/")
        place = _normal(here / target)
        if files.get_file_from_path(f"{place}/README.md"):
            return f"{target}/README.md"
        if place == "docs/decisions":
            pages = [PurePosixPath(file.src_uri) for file in files.documentation_pages()]
            return f"{target}/{min(page.name for page in pages if str(page.parent) == place)}"
        return match[1]

    return LINK.sub(to_page, markdown)


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for part in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(part)]


def _examples(source: Path) -> list[str]:
    return [f"examples/{path.name}" for path in sorted((source / "examples").iterdir()) if path.is_dir()]


def _listing(directory: Path, name: str) -> str:
    parts = [f"# {name}\n"]
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        fence = "~~~~"  # nothing in an example begins a line with it
        shown = path.read_text(errors="replace").rstrip()
        language = LANGUAGES.get(path.suffix, "text")
        parts.append(f"## {path.relative_to(directory)}\n\n{fence} {language}\n{shown}\n{fence}\n")
    return "\n".join(parts)


def _normal(path: PurePosixPath) -> str:
    kept: list[str] = []
    for part in path.parts:
        if part == ".." and kept:
            kept.pop()
        elif part != ".":
            kept.append(part)
    return "/".join(kept)
