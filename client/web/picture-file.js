// A picture as a person gives it: what it is by its content, and small enough to be sent.
//
// Names and declared types say little: phones write HEIC into files called .jpg, and know "image/jpg" and ".jfif".

import { within } from "./wait.js";

const LONGEST_SIDE = 2_048; // more than any portrait is streamed with
const MOST_PIXELS = 4_200_000;
const QUALITY = 0.92;
const DECODING_MS = 30_000;
const SENT = ["jpeg", "png", "webp"]; // what servers take as it is
const OPAQUE = new Set(["jpeg", "heic", "bmp"]);
const GONE = "This file cannot be read. Was it moved, or is it still in the cloud? Choose it again.";
const NAMES = {
  heic: "a HEIC picture, an iPhone's own format", avif: "an AVIF picture", jxl: "a JPEG XL picture", tiff: "a TIFF picture",
  raw: "a camera's raw file", gif: "a GIF picture", bmp: "a BMP picture", "svg+xml": "an SVG drawing", pdf: "a PDF file",
  video: "a video",
};

/** jpeg, png, webp, heic, avif, … by the first bytes, as image types are called; "" for what is none of them. */
export async function kindOf(file) {
  const reading = within(file.slice(0, 256).arrayBuffer(), DECODING_MS, () => { throw new Error("It took too long."); });
  const bytes = new Uint8Array(await reading.catch(() => { throw new Error(GONE); }));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  if (text.startsWith("\xff\xd8\xff")) return "jpeg";
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "webp";
  if (text.slice(4, 8) === "ftyp") return containerKind(text, bytes);
  if (text.startsWith("GIF8")) return "gif";
  if (text.startsWith("BM")) return "bmp";
  if (text.startsWith("\xff\x0a") || text.slice(4, 8) === "JXL ") return "jxl";
  if (text.startsWith("II*\0") || text.startsWith("MM\0*")) return /\.tiff?$/i.test(file.name) ? "tiff" : "raw";
  if (text.startsWith("%PDF")) return "pdf";
  if (/^\s*(<\?xml|<svg)/.test(text)) return "svg+xml";
  return "";
}

/** Of an ISO media file (ISO/IEC 14496-12): its brands tell pictures from videos. */
function containerKind(text, bytes) {
  const end = Math.min(new DataView(bytes.buffer).getUint32(0), text.length);
  const brands = [text.slice(8, 12), ...(text.slice(16, end).match(/[^]{4}/g) ?? [])];
  if (brands.some((brand) => /^avi[fs]$/.test(brand))) return "avif";
  if (brands.some((brand) => /^(he[iv][cmsx]|mif1|msf1)$/.test(brand))) return "heic";
  return brands[0] === "crx " ? "raw" : "video";
}

/**
 * The picture as it is sent: as it is, where a server takes it so; else drawn by this browser, upright and no larger than
 * needed. limits: the server's portrait_bytes and portrait_pixels. Throws an Error whose message says what to do.
 */
export async function prepared(file, limits = {}) {
  const mostBytes = limits.portrait_bytes ?? 8_000_000;
  const mostPixels = Math.min(limits.portrait_pixels ?? Infinity, MOST_PIXELS);
  const kind = await kindOf(file);
  const isSent = SENT.includes(kind);
  const original = new File([file], file.name, { type: kind && `image/${kind}` });
  const image = await opened(original);
  if (!image) {
    if (!isSent) throw new Error(unreadable(kind));
    if (file.size > mostBytes) throw new Error(tooLarge(mostBytes));
    return original; // the server may read what this browser cannot
  }
  const pixels = image.naturalWidth * image.naturalHeight;
  if (isSent && pixels <= mostPixels && file.size <= mostBytes) return original;
  const drawn = await redrawn(image, Math.sqrt(mostPixels / pixels), OPAQUE.has(kind));
  if (!drawn || drawn.size > mostBytes) throw new Error(tooLarge(mostBytes));
  return new File([drawn], file.name, { type: drawn.type });
}

/** The picture as the browser shows it, turned as the camera says; null where it cannot. */
async function opened(blob) {
  const image = new Image();
  const address = URL.createObjectURL(blob);
  image.src = address;
  try {
    await within(image.decode(), DECODING_MS, () => { throw new Error("It took too long."); });
    return image.naturalWidth && image.naturalHeight ? image : null;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(address);
  }
}

async function redrawn(image, share, opaque) {
  const longest = Math.max(image.naturalWidth, image.naturalHeight);
  const scale = Math.min(1, share, LONGEST_SIDE / longest);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * image.naturalWidth));
  canvas.height = Math.max(1, Math.round(scale * image.naturalHeight));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const seeThrough = !opaque && isTransparent(context, canvas);
  const encoding = new Promise((resolve) => canvas.toBlob(resolve, seeThrough ? "image/webp" : "image/jpeg", QUALITY));
  return within(encoding, DECODING_MS, () => null); // browsers that write no WebP make a PNG, which is as good
}

function isTransparent(context, { width, height }) {
  const { data } = context.getImageData(0, 0, width, height);
  for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  return false;
}

function unreadable(kind) {
  if (kind === "heic") {
    return "This is a HEIC picture, an iPhone's own format, which this browser cannot open. Send it to yourself as JPEG " +
      "(in Photos: Share, Options, Most Compatible), or open this page in Safari. For new pictures: Settings, Camera, " +
      "Formats, Most Compatible.";
  }
  const what = NAMES[kind] ? `This is ${NAMES[kind]}, which this browser cannot open as a picture.` : "This file is no picture that this browser can read.";
  return `${what} Choose a JPEG, PNG or WebP picture.`;
}

function tooLarge(mostBytes) {
  return `The picture is larger than ${Math.floor(mostBytes / 1_000_000)} MB, and this browser cannot make it smaller. ` +
    "Choose or save a smaller one.";
}
