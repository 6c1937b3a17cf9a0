"""Pictures as phones, programs and browsers give them: by content, upright, small enough, or named in words."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pages import TRIED_MS, open_page
from PIL import Image, features
from playwright.async_api import Browser, Page, expect
from served import ROOT, RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

ASTRONAUT = ROOT / "pipeline" / "weights" / "portrait_256" / "portraits" / "astronaut.jpg"
ORIENTATION = 0x0112
TURNED_RIGHT = 6  # the camera was held so that the picture has to be turned by 90 degrees to the right
PREPARED = """async ({ data, given, declared, limits }) => {
  const { prepared, kindOf } = await import("/picture-file.js");
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const file = new File([bytes], given, { type: declared });
  const kind = await kindOf(file);
  try {
    const made = await prepared(file, limits);
    const image = await createImageBitmap(made);
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    const corner = [...context.getImageData(2, 2, 1, 1).data];
    const { name, type, size } = made;
    return { kind, name, type, size, width: image.width, height: image.height, corner };
  } catch (error) {
    return { kind, error: error.message };
  }
}"""


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def corner_picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Blue, its upper left quarter red."""
    picture = Image.new("RGB", (width, height), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, width // 2, height // 2))
    return picture.convert(mode)


def turned(width: int, height: int) -> bytes:
    """As stored by a phone that was held upright: lying on its side, with a note to turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    return encoded(corner_picture(width, height), "JPEG", exif=exif)


def container(*brands: bytes) -> bytes:
    """The beginning of an ISO media file."""
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return (len(box) + 4).to_bytes(4, "big") + box + bytes(200)


async def prepared(
    page: Page, data: bytes, name: str, declared: str = "image/jpeg", **limits: int
) -> dict[str, Any]:
    parts = {"data": base64.b64encode(data).decode(), "given": name, "declared": declared, "limits": limits}
    answer: dict[str, Any] = await page.evaluate(PREPARED, parts)
    return answer


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, plain_server: RunningServer) -> Page:
    opened, _ = await open_page(browser, plain_server.url)
    return opened


@pytest.mark.parametrize(
    ("name", "declared", "form"),
    [
        ("me.jfif", "image/pjpeg", "JPEG"),
        ("me.jpg", "image/jpg", "JPEG"),
        ("me", "", "JPEG"),
        ("me.jpg", "image/jpeg", "PNG"),
        ("me.png", "image/png", "WEBP"),
        ("me.txt", "text/plain", "PNG"),
    ],
)
async def test_a_small_picture_goes_as_it_is_under_its_true_type(
    page: Page, name: str, declared: str, form: str
) -> None:
    data = encoded(corner_picture(400, 300), form)
    made = await prepared(page, data, name, declared)
    assert made["type"] == f"image/{form.lower()}"
    assert made["size"] == len(data)
    assert made["name"] == name


@pytest.mark.parametrize(
    ("width", "height"), [(5_656, 4_242), (8_064, 6_048), (2_500, 2_000), (9_000, 1_000)]
)
async def test_a_large_photograph_is_made_smaller(page: Page, width: int, height: int) -> None:
    made = await prepared(page, encoded(corner_picture(width, height), "JPEG"), "IMG_1.jpg")
    assert made["type"] == "image/jpeg"
    assert max(made["width"], made["height"]) <= 2_048
    assert made["width"] * made["height"] > 0.9 * min(2_048**2 * min(width, height) / max(width, height), 4e6)
    assert abs(made["width"] / made["height"] - width / height) < 0.02 * width / height
    assert made["corner"][0] > 200 > 60 > made["corner"][2]


async def test_it_stays_upright(page: Page) -> None:
    made = await prepared(page, turned(4_032, 3_024), "IMG_2.jpg")
    assert (made["width"], made["height"]) == (1_536, 2_048)
    assert made["corner"][2] > 200, "the red corner is on the right once the picture is turned"


async def test_the_limits_of_the_server_count(page: Page) -> None:
    noise = Image.effect_noise((1_500, 1_000), 80).convert("RGB")
    data = encoded(noise, "JPEG", quality=97)
    made = await prepared(page, data, "noise.jpg", portrait_bytes=len(data) - 1)
    assert made["size"] < len(data)
    made = await prepared(page, data, "noise.jpg", portrait_pixels=500_000)
    assert made["width"] * made["height"] <= 501_000
    refused = await prepared(page, data, "noise.jpg", portrait_bytes=2_000)
    assert "smaller" in refused["error"]


async def test_a_cut_out_stays_cut_out(page: Page) -> None:
    picture = corner_picture(3_000, 3_000, "RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 1_500, 1_500))
    made = await prepared(page, encoded(picture, "PNG"), "cut-out.png", "image/png")
    assert made["type"] in ("image/webp", "image/png")
    assert made["width"] == 2_048
    assert made["corner"][3] == 0


@pytest.mark.parametrize("form", ["GIF", "BMP", "AVIF"])
async def test_what_the_browser_can_open_is_written_anew(page: Page, form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    made = await prepared(page, encoded(corner_picture(300, 200), form), "IMG_3.jpg")
    assert made["kind"] == form.lower()
    assert made["type"] == "image/jpeg"
    assert (made["width"], made["height"]) == (300, 200)


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (container(b"heic", b"mif1", b"heic"), "IMG_4.HEIC", "HEIC"),
        (container(b"mif1", b"mif1", b"heic"), "IMG_4.jpg", "HEIC"),
        (container(b"heix", b"heix"), "IMG_4.jpeg", "HEIC"),
        (container(b"avif", b"avif", b"mif1"), "x.jpg", "AVIF"),
        (container(b"qt  "), "clip.mov", "video"),
        (container(b"isom", b"iso2", b"mp41"), "clip.jpg", "video"),
        (b"%PDF-1.7 ....", "me.pdf", "PDF"),
        (b"II*\0" + bytes(100), "me.tif", "TIFF"),
        (b"II*\0" + bytes(100), "DSC_1.NEF", "raw file"),
        (b"just some text, no picture", "me.jpg", "no picture"),
        (b"", "empty.jpg", "no picture"),
    ],
)
async def test_what_it_cannot_open_is_called_by_its_name(
    page: Page, data: bytes, name: str, words: str
) -> None:
    refused = await prepared(page, data, name)
    assert words in refused["error"]
    assert "JPEG" in refused["error"], "it says what to do"


async def test_a_file_that_cannot_be_read_is_said(page: Page) -> None:
    await page.evaluate(
        "() => { Blob.prototype.arrayBuffer = () => Promise.reject(new DOMException('x', 'NotReadableError')); }"
    )
    refused = await page.evaluate(
        """async () => { const { prepared } = await import("/picture-file.js");
        return prepared(new File(["x"], "me.jpg")).catch((error) => error.message); }"""
    )
    assert "cannot be read" in refused


async def test_the_picker_offers_them_all(page: Page) -> None:
    accepted = str(await page.locator("#file").get_attribute("accept")).split(",")
    assert "image/*" in accepted
    assert {".jfif", ".heic", ".heif"} <= set(accepted)


async def test_a_phone_photograph_becomes_a_portrait(
    browser: Browser, server: RunningServer, tmp_path: Path
) -> None:
    """24 megapixels on its side, named as phones do: tried out by the model, and found to suit."""
    page, complaints = await open_page(browser, server.url)
    with Image.open(ASTRONAUT) as opened:
        upright = opened.convert("RGB").resize((4_900, 4_900), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    path = tmp_path / "IMG_0042.jfif"
    path.write_bytes(encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif))
    async with page.expect_request(lambda request: request.url.endswith("/v1/portraits")) as posted:
        await page.set_input_files("#file", path)
    headers = await (await posted.value).all_headers()
    assert 20_000 < int(headers["content-length"]) < 2_000_000
    await expect(page.locator('#upload-look[data-state="found"]')).to_be_visible(timeout=TRIED_MS)
    await page.click("#upload-cancel")
    await page.set_input_files(
        "#file", {"name": "IMG_5.jpg", "mimeType": "image/jpeg", "buffer": container(b"heic")}
    )
    await expect(page.locator("#upload-error")).to_contain_text("HEIC")
    await page.close()
    assert complaints == []
