// Figures in words, as the command line has them (bitfront/figures.py).

const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const UNITS = { bytes: "B", bits: "bit", stored_bits: "bit", bops: "BOPs" };
const AVERAGED = ["bits", "stored_bits"]; // given per weight, where the number of weights is known

export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A number to so many digits, as %g of C has it. */
export function digits(value, count = 4) {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(count - 1).split("e");
  const exponent = Number(power);
  if (exponent >= -4 && exponent < count) return String(Number(value.toPrecision(count)));
  const sign = exponent < 0 ? "-" : "+";
  return `${Number(mantissa)}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

/** Size and name of the unit that suits a cost. */
export function unitOf(resource, value) {
  if (resource === "seconds") return [1e-3, "ms"];
  if (!(resource in UNITS)) return [1, ""];
  const [size, prefix] = PREFIXES.find(([p]) => Math.abs(value) >= p) ?? PREFIXES.at(-1);
  return [size, prefix + UNITS[resource]];
}

/** A cost in the unit that suits it. */
export function amount(resource, value) {
  if (!known(value)) return "–";
  const [size, unit] = unitOf(resource, value);
  return `${digits(value / size)} ${unit}`.trim();
}

/** The same, per weight where that is how people speak of it. */
export function cost(resource, value, weights) {
  if (AVERAGED.includes(resource) && weights && known(value)) return `${digits(value / weights)} per weight`;
  return amount(resource, value);
}

/** A value with its standard error, unless that is exact or unknown. */
export function figure(estimate) {
  if (!estimate || !known(estimate.value)) return "–";
  const error = estimate.stderr;
  return digits(estimate.value) + (known(error) && error > 0 ? ` ± ${digits(error, 1)}` : "");
}

/** Texts as sentences; empty ones are left out. */
export function sentences(...texts) {
  return texts.filter(Boolean).map((text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`).join(" ");
}

export const count = (value) => value.toLocaleString("en");

export const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** Seconds in words, to two places. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor((whole % 86400) / 3600), Math.floor((whole % 3600) / 60)];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** How long ago a moment was, roughly. */
export function ago(moment) {
  const seconds = Math.max(0, (Date.now() - new Date(moment)) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 60) return "less than a minute ago";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(moment).toISOString().slice(0, 10);
}

/** The name of a recorded metric without the data that it was measured on. */
export const bare = (name) => name.replace(/^(calibration|held-back|partial)\//, "");

/** The unit of a metric, from a study's settings. */
export function metricUnit(study, name) {
  return study.settings.metrics?.[bare(name)]?.unit ?? "";
}
