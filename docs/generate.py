"""
Write what the documentation takes from elsewhere: the pages and the picture from ``benchmarks/results``, the tables of names
from the code.

    python docs/generate.py            # after new results, or a new score, schedule or distribution
    python docs/generate.py --check    # say which files are not up to date

The page of a grid is its report, made of what ``sb3-sparse benchmark store`` has written. Any other page is one file in
``generator/pages``. Its text is written by hand around the numbers, and a sentence that new results
contradict stops the script.
"""

import argparse
import re
import sys
from importlib import import_module
from pathlib import Path

from generator import boards, grids, headline, names, picture, small
from generator.markdown import number, table
from generator.page import NOTE, Page
from generator.pages import NAMES

DOCS = Path(__file__).parent


def generate() -> dict[Path, str]:
    """
    :return: What every file that is generated, or holds a generated block, should contain
    """
    pages = {name: import_module(f"generator.pages.{name}").page() for name in NAMES}
    files = {DOCS / "results" / f"{name}.md": page.render() for name, page in pages.items()}
    files |= {DOCS / "results" / f"{grids.page_name(name)}.md": grids.render(name) for name in grids.grids()}
    files[DOCS / "results" / "index.md"] = _index(pages)
    files[DOCS / "picture.svg"] = picture.picture()
    readme, folder = DOCS.parent / "README.md", "docs/results/"
    files[readme] = _fill(readme, {"headline": f"{small.small(folder)}\n\n{headline.headline(folder)}"})
    methods = DOCS / "guide" / "methods.md"
    files[methods] = _fill(methods, {family: names.names(family) for family in names.FAMILIES})
    microcontroller = DOCS / "guide" / "microcontroller.md"
    files[microcontroller] = _fill(microcontroller, {"boards": boards.boards()})
    return files


def _index(pages: dict[str, Page]) -> str:
    rows = [(f"[{page.title}]({name}.md)", page.question) for name, page in pages.items()]
    million = 1_000_000
    runs, hours = grids.count_runs(million)
    reports = {grids.page_name(name): grids.report(name) for name in grids.grids()}
    lines = [(f"[{report.title}]({name}.md)", report.summary) for name, report in reports.items()]
    return "\n\n".join(
        [
            "# Results",
            NOTE,
            (
                "Every number on these pages comes from a file in `benchmarks/results`, and every page names the command that"
                " makes it again."
            ),
            (
                f"The grids below hold {runs} trainings of at least {number(million)} steps or updates, which took"
                f" {number(hours)} CPU hours, as far as these are known."
            ),
            small.small(""),
            headline.headline(""),
            "## All pages",
            table(("page", "question"), rows, align="ll"),
            *(["## Reports of grids", table(("report", "what is finished"), lines, align="ll")] if lines else []),
            "```{toctree}\n:hidden:\n\n" + "\n".join([*pages, *reports]) + "\n```\n",
        ]
    )


def _fill(path: Path, blocks: dict[str, str]) -> str:
    """The file with each block put between its two comments."""
    text = path.read_text()
    for name, block in blocks.items():
        pattern = rf"(<!-- begin {name}: [^\n]* -->\n).*?(<!-- end {name} -->)"
        text, count = re.subn(pattern, lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(
                f"{path} needs one block '<!-- begin {name}: ... -->' that '<!-- end {name} -->' closes; it has {count}"
            )
    return text


def main() -> int:
    """Write or check, and say which files changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    args = parser.parse_args()
    stale = {path: text for path, text in generate().items() if not path.is_file() or path.read_text() != text}
    for path, text in stale.items():
        print(f"{'out of date' if args.check else 'written'}: {path.relative_to(DOCS.parent)}")
        if not args.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for name in [] if args.check else grids.grids():
        for file in grids.draw(name):
            print(f"drawn: benchmarks/results/{file}")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
