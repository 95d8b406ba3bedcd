"""Takes pictures of the mails of codes in Chromium; see scripts/pictures."""

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Route, sync_playwright

from otpmail.compose.building import Look
from otpmail.compose.catalog import Templates
from otpmail.compose.purposes import ALL_KINDS
from otpmail.product import Product

DOCS = Path(__file__).parents[2] / "docs" / "pictures"
WIDTHS = (360, 800)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
COLORS = 32
GAP = 12

ACME = Product(name="Acme", url="https://acme.example", color="#0a7c66", support_address="help@acme.example")
WITH_LOGO = Product(name="Acme", url="https://acme.example", logo_url="https://acme.example/logo.svg")
ODD = Product(
    name="<b>C++</b> Donaudampfschifffahrtsgesellschaftskapit\u00e4ne (EU)!",
    url="https://acme.example",
    color="#ffcc00",
    support_address="customer-service-and-account-security@subsidiary.of-a-very-long-company-name.example",
)
"""Too long for a line, with signs at its ends that must stay there where text runs to the left."""
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="104" height="32"><circle cx="16" cy="16" r="14" fill="#0a7c66"/>'
    '<text x="38" y="23" font-family="sans-serif" font-size="20" font-weight="bold" fill="#18181b">Acme</text></svg>'
)
VALUES = {"code": "271828", "reference": "K7QD", "email": "ada@example.org"}
LONG = {**VALUES, "code": "7F3KQ2ABXTMC"}


def mails() -> Iterator[tuple[str, str]]:
    """Yield the HTML of each mail, with its name."""
    branded, plain, logo = (
        Templates(None, default_locale="en", look=Look(product)) for product in (ACME, Product(), WITH_LOGO)
    )
    for locale in sorted(branded.by_locale):
        for kind in ALL_KINDS:
            yield f"{locale}-{kind}", branded.render(locale, kind, VALUES, valid_seconds=600).html
    for kind in ALL_KINDS:
        yield f"plain-{kind}", plain.render("en", kind, VALUES, valid_seconds=120).html
    yield "logo", logo.render("en", "sign_in", VALUES, valid_seconds=600).html
    for locale in ("en", "ar"):
        yield f"{locale}-long", branded.render(locale, "sign_in", LONG, valid_seconds=90).html
    odd = Templates(None, default_locale="en", look=Look(ODD))
    for locale in ("en", "he", "ja"):
        yield f"{locale}-odd", odd.render(locale, "sign_in", LONG, valid_seconds=3600).html


def take(browser: Browser, html: str, width: int, scheme: Literal["light", "dark"]) -> tuple[Image.Image, int]:
    """Return a picture of a mail, and how wide it is laid out. Nothing is loaded but a logo of ours."""
    page = browser.new_page(viewport={"width": width, "height": 200}, color_scheme=scheme)
    page.route("**/*", _give)
    page.set_content(html)
    laid_out: int = page.evaluate("document.documentElement.scrollWidth")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    page.close()
    return picture, laid_out


def _give(route: Route) -> None:
    if route.request.url == WITH_LOGO.logo_url:
        route.fulfill(body=LOGO, content_type="image/svg+xml")
    else:
        route.abort()


def beside(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures side by side."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "#9ca3af")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    return sheet


def below(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures one below the other."""
    height = sum(picture.height for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(picture.width for picture in pictures), height), "#9ca3af")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + GAP
    return sheet


def _save(picture: Image.Image, file: Path) -> None:
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)


def _sheets(taken: dict[str, Image.Image]) -> Iterator[tuple[str, Image.Image]]:
    """Yield what docs/pictures holds: the mail, its other looks, and all languages."""
    yield "mail", beside([taken[f"en-sign_in-360-{scheme}"] for scheme in SCHEMES])
    yield "wide", below([taken[f"en-reset-800-{scheme}"] for scheme in SCHEMES])
    yield "looks", beside([taken[f"{name}-360-dark"] for name in ("plain-code", "logo", "ar-long", "he-odd")])
    locales = sorted({name.partition("-sign_in-")[0] for name in taken if "-sign_in-" in name} - {"plain"})
    for scheme in SCHEMES:
        pictures = [taken[f"{locale}-sign_in-360-{scheme}"] for locale in locales]
        yield (
            f"languages-{scheme}",
            below([beside(pictures[start : start + 5]) for start in range(0, len(pictures), 5)]),
        )


def main(folder: Path | None) -> int:
    """Take all pictures. Returns 1 where one is wider than its window."""
    taken: dict[str, Image.Image] = {}
    wide: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, html in mails():
            for width in WIDTHS:
                for scheme in SCHEMES:
                    shown = f"{name}-{width}-{scheme}"
                    taken[shown], laid_out = take(browser, html, width, scheme)
                    wide += [shown] if laid_out > width else []
        browser.close()
    DOCS.mkdir(exist_ok=True)
    for name, sheet in _sheets(taken):
        _save(sheet, DOCS / f"{name}.png")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in taken.items():
            _save(picture, folder / f"{name}.png")
    print(f"{len(taken)} pictures taken; wider than their window: {', '.join(wide) or 'none'}")  # noqa: T201
    return 1 if wide else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
