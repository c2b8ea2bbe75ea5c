"""The README's animation: ``python tests/e2e/film.py assets/traces/RACE.json assets/race.webp``.

Exports a recorded race as its offline page, winds it through in a headless Chromium at a tenth of
its real speed, and joins the pictures.
"""

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FRAMES_A_SECOND, SLOW_MOTION, LAST_SECONDS = 12, 10, 2.5
SIZE = {"width": 1280, "height": 740}


def pictures(page: Page) -> list[Image.Image]:
    """The two lanes and the score at every twelfth of a second of slow motion."""
    scrub, stage = page.get_by_role("slider", name="Time"), page.locator(".screen")
    seconds = float(scrub.get_attribute("max") or 0)
    count = round(seconds * SLOW_MOTION * FRAMES_A_SECOND)
    frames = []
    for n in range(count + 1):
        scrub.evaluate(
            "(node, at) => { node.value = at; node.dispatchEvent(new Event('input')); }",
            seconds * n / count,
        )
        page.wait_for_timeout(60)  # a frame of the browser
        frames.append(Image.open(io.BytesIO(stage.screenshot())).convert("RGB"))
    return frames


def main() -> None:
    from app.export import page as exported
    from app.recordings.recording import Recording

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path, help="a recorded race")
    parser.add_argument("output", type=Path, help="the .webp to write")
    args = parser.parse_args()
    html = exported(Recording.from_json(args.trace.read_text(encoding="utf-8")))
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "race.html"
        file.write_text(html, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(file.as_uri())
        page.locator("[name=speed][value='4']").check()
        page.locator(".board[data-state=finished]").wait_for()
        frames = pictures(page)
        browser.close()
    each = round(1000 / FRAMES_A_SECOND)
    durations = [each] * (len(frames) - 1) + [round(1000 * LAST_SECONDS)]
    first, *rest = frames
    first.save(
        args.output, save_all=True, append_images=rest, duration=durations, loop=0, quality=60
    )
    print(f"{args.output}: {len(frames)} pictures, {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
