"""The Python of the README and of docs/ runs, and prints what it says it prints.

A file's ```python blocks run in order in one namespace. A block with >>> prompts is
checked line by line, any other block is only run.
"""

import doctest
import re
from pathlib import Path

import pytest

from rpjax import report
from rpjax.report import tables

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(page):
    """(line number, code) of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m[1]) for m in FENCE.finditer(text)]


def run(page, shorter=()):
    """Run a page's blocks; shorter: (text, other text) of what would take long."""
    names = {"__name__": page.stem}
    for line, code in blocks(page):
        for text, other in shorter:
            code = code.replace(text, other)
        if ">>> " in code:
            check(code, names, page, line)
        else:
            # blank lines in front make a traceback show the page's own line numbers
            exec(compile("\n" * line + code, str(page), "exec"), names)


def check(code, names, page, line):
    test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), line)
    test.globs = names
    report = []
    result = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
    assert not result.failed, "".join(report)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name
)
def test_the_code_of_a_page_prints_what_the_page_says(page):
    if not blocks(page):
        pytest.skip(f"{page.name} has no Python block")
    run(page)


@pytest.mark.slow
def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    page = ROOT / "README.md"
    assert blocks(page), "the README has lost its code"
    monkeypatch.chdir(tmp_path)  # whatever it writes
    assert '"epochs": 10' in page.read_text()
    run(page, shorter=[('"epochs": 10', '"epochs": 1')])


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        if page.exists()
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert not broken


def test_the_readme_quotes_the_summary_of_what_is_guaranteed():
    page, readme = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for name in ("docs/guarantees.md", "README.md")
    )
    summary = page.split("## In short ")[1].split(" That is the summary")[0]
    assert len(summary) > 500
    assert summary in readme


def test_a_wrong_figure_on_a_page_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n2\n```\n\n```python\n>>> 1 + 2\n4\n```\n")
    with pytest.raises(AssertionError, match=r"line 7(.|\n)*Got:\n +3\n"):
        run(page)


def test_the_readmes_table_is_that_of_its_record():
    """Every number stands in a committed file that a command wrote."""
    results = report.load(ROOT / "benchmarks" / "records" / "compare_digits.json")
    table = [line for line in tables.markdown(results).splitlines() if line[:1] == "|"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(table) in readme
