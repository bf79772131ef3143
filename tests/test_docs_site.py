"""The documentation as a site: it builds strictly, no page is left out, and nothing comes from elsewhere."""

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github/workflows/docs.yml"


class Fetched(html.parser.HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        url = given.get("href" if tag == "link" else "src")
        if tag in ("link", "script", "img", "iframe", "source") and url and given.get("rel") != "canonical":
            self.urls.append(url)


def build(site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tasks.py", "docs", "--site-dir", str(site)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "NO_COLOR": "1"}
    )


def test_the_site_builds_strictly_and_has_every_page(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    front = (tmp_path / "site/index.html").read_text()
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/")]:
        place = page.relative_to(ROOT).with_suffix("").as_posix()
        assert (tmp_path / "site" / place / "index.html").is_file(), place
        assert f'href="{place}/"' in front, f"{place} is not in the navigation"
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = Fetched()
        fetched.feed(page.read_text())
        assert not [url for url in fetched.urls if re.match(r"(\w+:)?//", url)], page


def test_the_workflow_builds_it_as_here_and_publishes_main_alone() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    build_job, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert "python3 tasks.py docs" in [step.get("run", "").strip() for step in build_job["steps"]]
    assert workflow["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert "github.ref == 'refs/heads/main'" in publish["if"]
    upload = next(step for step in build_job["steps"] if "upload-pages-artifact" in step.get("uses", ""))
    assert upload["with"]["path"] == "build/site"
