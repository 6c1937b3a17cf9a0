// The level of the voice as a bar, and as words for those who do not see it.

const DRAWN_EVERY_MS = 66; // not with every frame of the screen: each change costs a redraw of the page
const TOLD_EVERY_MS = 500;

/** levelDb: () => dB below full scale, or null where the browser does not tell. */
export function showLevel(page, levelDb) {
  const element = (id) => page.getElementById(id);
  setInterval(() => {
    const level = levelDb() ?? -60;
    element("meter-fill").style.clipPath = `inset(0 ${((-100 * level) / 60).toFixed(1)}% 0 0 round 999px)`;
  }, DRAWN_EVERY_MS);
  setInterval(() => {
    const known = levelDb();
    const level = Math.round(known ?? -60);
    const words = known === null ? "not known" : level < -50 ? "silent" : level > -6 ? "too loud" : `${level} decibels`;
    element("meter").setAttribute("aria-valuenow", String(level));
    element("meter").setAttribute("aria-valuetext", words);
    element("meter-help").hidden = known !== null;
  }, TOLD_EVERY_MS);
}
