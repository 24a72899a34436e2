"""Real pictures with text: pages of PDF manuals, and documentation on a screen of 3840 x 2160 pixels.

    python scripts/text_pictures.py -o outputs/real --pages 100 --screens 100
    cof data outputs/real/pictures --make text-questions --overview-pixels 150000 -o outputs/text

The manuals come from Debian's packages, which are downloaded and unpacked, not installed. The same packages and seed give
the same pictures. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cof_agent.output.progress import track

PAGES = ("r-doc-pdf", "octave-doc")
SCREENS = ("python3.11-doc", "git-doc", "postgresql-doc-15")
WINDOW = "3840,2160"
LONGEST = 600  # seconds of one screen, on a busy machine
SMALLEST = 8_000  # bytes of an HTML file that fills some of a screen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True, help="folder for pictures/ and packages/")
    parser.add_argument("--pages", type=int, default=100, help="number of pages of PDF manuals (default: 100)")
    parser.add_argument("--screens", type=int, default=100, help="number of screens of documentation (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (default: 0)")
    options = parser.parse_args()
    if missing := [name for name in ("apt-get", "dpkg", "chromium") if shutil.which(name) is None]:
        print(f"text_pictures.py needs {', '.join(missing)}.", file=sys.stderr)
        return 2
    output = Path(options.output)
    unpacked = output / "packages"
    for name in (*PAGES, *SCREENS):
        unpack(name, unpacked / name)
    rng = random.Random(options.seed)
    pages = sample_of(rng, [page for name in PAGES for page in pages_in(unpacked / name)], options.pages)
    screens = sample_of(rng, [file for name in SCREENS for file in texts_in(unpacked / name)], options.screens)
    for number, (file, page) in enumerate(track(pages, "Pages")):
        write_page(file, page, output / "pictures" / "pages" / f"{number:03}-{file.stem}-{page + 1}.pdf")
    for number, file in enumerate(track(screens, "Screens")):
        write_screen(file, output / "pictures" / "screens" / f"{number:03}-{file.stem}.png")
    print(f"{len(pages)} pages and {len(screens)} screens: {output / 'pictures'}")
    return 0


def unpack(package: str, folder: Path) -> None:
    """Downloads a package of Debian and unpacks it."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as here:
        subprocess.run(["apt-get", "-q", "download", package], cwd=here, check=True, capture_output=True)
        (archive,) = Path(here).glob("*.deb")
        subprocess.run(["dpkg", "-x", archive, Path(here) / "all"], check=True)
        (Path(here) / "all").rename(folder)


def pages_in(folder: Path) -> list[tuple[Path, int]]:
    """Each page of the PDF files, without covers and tables of contents."""
    import pypdfium2

    found = []
    for file in sorted(folder.rglob("*.pdf")):
        with pypdfium2.PdfDocument(file) as document:
            found += [(file, page) for page in range(12, len(document))]
    return found


def texts_in(folder: Path) -> list[Path]:
    """HTML files that fill some of a screen."""
    return [file for file in sorted(folder.rglob("*.html")) if file.is_file() and file.stat().st_size > SMALLEST]


def sample_of(rng: random.Random, all_of_them: Sequence, count: int) -> list:
    return rng.sample(all_of_them, min(count, len(all_of_them)))


def write_page(file: Path, page: int, target: Path) -> None:
    """One page as a PDF file of its own."""
    import pypdfium2

    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with pypdfium2.PdfDocument(file) as document, pypdfium2.PdfDocument.new() as single:
        single.import_pages(document, [page])
        written = target.with_suffix(".part")
        single.save(written)
    written.replace(target)


def write_screen(file: Path, target: Path) -> None:
    """What Chromium shows of a file in a large window, without a network."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn = target.with_suffix(".part.png")
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={WINDOW}",
    ]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--screenshot={drawn}", file.resolve().as_uri()]
    try:
        subprocess.run(command, check=True, timeout=LONGEST, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.SubprocessError as error:
        sys.exit(f"text_pictures.py: Chromium did not draw {file}: {error}. The same command goes on from here.")
    drawn.replace(target)


if __name__ == "__main__":
    sys.exit(main())
