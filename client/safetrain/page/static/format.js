// Number formats of each language, with the rules of safetrain_shared.i18n.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
let lang = "en";

export function speak(chosen) {
  lang = chosen;
}

// With a fixed number of digits: 7.3, in Portuguese 7,3.
export function decimal(value, digits) {
  const text = value.toFixed(digits);
  return lang === "pt" ? text.replace(".", ",") : text;
}

// A count with thousands separators: 12,345, in Portuguese 12 345 (no-break space), but 1234.
export function integer(value) {
  const whole = Math.round(value);
  if (lang === "pt" && Math.abs(whole) < 10000) return String(whole);
  const apart = lang === "pt" ? "\u00a0" : ",";
  return String(whole).replace(/\B(?=(\d{3})+$)/g, apart);
}

// A share as whole percent: 12%, in Portuguese 12 % (no-break space).
export function percent(share) {
  return `${Math.floor(100 * share)}${lang === "pt" ? "\u00a0" : ""}%`;
}

// Bytes, 1 GiB = 2**30 bytes: 7.3 GiB.
export function size(value) {
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${decimal(value, unit < 2 ? 0 : 1)} ${UNITS[unit]}`;
}

// The shortest form to six digits, never with an exponent: 0.00002.
export function number(value) {
  const short = Number.isInteger(value) ? value : Number(value.toPrecision(6));
  let text = String(short);
  if (text.includes("e") && Math.abs(short) < 1) {
    text = short.toFixed(10).replace(/0+$/, "");
  }
  return lang === "pt" ? text.replace(".", ",") : text;
}
