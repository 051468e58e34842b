/**
 * Reads decoded forms into typed parameters, refusing what Stripe refuses: missing, unknown, empty and malformed
 * values, each named by its path (`items[0][price]`).
 */
import { invalidRequest } from "../errors.ts";
import type { FormValue } from "./form.ts";

export type Reader<T> = (value: FormValue, path: string) => T;

/** A reader of a value that must be there. */
export interface RequiredReader<T> {
  required: Reader<T>;
}

export type Spec = Record<string, Reader<unknown> | RequiredReader<unknown>>;

export type Params<S extends Spec> = {
  [K in keyof S]: S[K] extends RequiredReader<infer T>
    ? T
    : S[K] extends Reader<infer T>
      ? T | undefined
      : never;
};

export function required<T>(reader: Reader<T>): RequiredReader<T> {
  return { required: reader };
}

/** An empty string means "unset", which is read as null. */
export function unsettable<T>(reader: Reader<T>): Reader<T | null> {
  return (value, path) => (value === "" ? null : reader(value, path));
}

export const text: Reader<string> = (value, path) => {
  if (typeof value !== "string") throw invalidRequest("Invalid string", { param: path });
  if (value === "") {
    throw invalidRequest(
      `You passed an empty string for '${path}'. We assume empty values are an attempt to unset a parameter; ` +
        `however '${path}' cannot be unset. You should remove '${path}' from your request or supply a non-empty value.`,
      { code: "parameter_invalid_empty", param: path },
    );
  }
  return value;
};

export const integer: Reader<number> = (value, path) => {
  const characters = text(value, path);
  if (!/^-?\d{1,15}$/.test(characters)) {
    throw invalidRequest(`Invalid integer: ${characters}`, {
      code: "parameter_invalid_integer",
      param: path,
    });
  }
  return Number(characters);
};

/** An integer from zero up: amounts, quantities, timestamps. */
export const natural: Reader<number> = (value, path) => {
  const number = integer(value, path);
  if (number < 0) {
    throw invalidRequest("This value must be greater than or equal to 0.", {
      code: "parameter_invalid_integer",
      param: path,
    });
  }
  return number;
};

export const flag: Reader<boolean> = (value, path) => {
  if (value === "true") return true;
  if (value === "false") return false;
  throw invalidRequest(`Invalid boolean: ${String(value)}`, { param: path });
};

export const decimalText: Reader<string> = (value, path) => {
  const characters = text(value, path);
  if (!/^\d+(\.\d{1,12})?$/.test(characters)) {
    throw invalidRequest(`Invalid decimal: ${characters}`, { param: path });
  }
  return characters;
};

export function oneOf<const T extends string>(...allowed: T[]): Reader<T> {
  return (value, path) => {
    const found = allowed.find((candidate) => candidate === value);
    if (found !== undefined) return found;
    throw invalidRequest(`Invalid ${path}: must be one of ${allowed.join(", ")}`, { param: path });
  };
}

/** A moment in unix seconds, or a word Stripe takes in its place. */
export function momentOr<const T extends string>(...words: T[]): Reader<number | T> {
  return (value, path) => {
    const word = words.find((candidate) => candidate === value);
    return word ?? natural(value, path);
  };
}

export function list<T>(reader: Reader<T>): Reader<T[]> {
  return (value, path) => {
    if (typeof value === "string") throw invalidRequest("Invalid array", { param: path });
    const positions = [...value.keys()];
    if (positions.some((key) => !/^\d+$/.test(key))) {
      throw invalidRequest("Invalid array", { param: path });
    }
    return [...value]
      .sort(([a], [b]) => Number(a) - Number(b))
      .map(([key, child]) => reader(child, `${path}[${key}]`));
  };
}

export function hash<S extends Spec>(spec: S): Reader<Params<S>> {
  return (value, path) => {
    if (typeof value === "string") throw invalidRequest("Invalid hash", { param: path });
    return readParams(value, spec, path);
  };
}

/** A number, or bounds on it: `created=1` and `created[gte]=1`. */
export const range: Reader<(candidate: number) => boolean> = (value, path) => {
  if (typeof value === "string") {
    const exact = integer(value, path);
    return (candidate) => candidate === exact;
  }
  const bounds = readParams(value, { gt: integer, gte: integer, lt: integer, lte: integer }, path);
  return (candidate) =>
    (bounds.gt === undefined || candidate > bounds.gt) &&
    (bounds.gte === undefined || candidate >= bounds.gte) &&
    (bounds.lt === undefined || candidate < bounds.lt) &&
    (bounds.lte === undefined || candidate <= bounds.lte);
};

/** Free names to texts. */
export const dictionary: Reader<{ [key: string]: string }> = (value, path) => {
  if (typeof value === "string") throw invalidRequest("Invalid hash", { param: path });
  return Object.fromEntries(
    [...value].map(([key, child]): [string, string] => [key, text(child, `${path}[${key}]`)]),
  );
};

/** A moment as RFC 3339, in unix seconds. */
export const isoMoment: Reader<number> = (value, path) => {
  const milliseconds = Date.parse(text(value, path));
  if (Number.isNaN(milliseconds)) throw invalidRequest("Invalid timestamp", { param: path });
  return Math.floor(milliseconds / 1000);
};

export type MetadataChange = { [key: string]: string } | null;

/** Names to values; an empty value deletes its key, an empty hash (null) deletes all. */
export const metadata: Reader<MetadataChange> = (value, path) => {
  if (value === "") return null;
  if (typeof value === "string") throw invalidRequest("Invalid hash", { param: path });
  const entries = [...value].map(([key, child]): [string, string] => {
    if (typeof child !== "string") {
      throw invalidRequest("Metadata values must be strings", { param: `${path}[${key}]` });
    }
    if (key.length > 40 || child.length > 500) {
      throw invalidRequest("Metadata keys have at most 40 characters and values at most 500.", {
        param: `${path}[${key}]`,
      });
    }
    return [key, child];
  });
  return Object.fromEntries(entries);
};

export function readParams<S extends Spec>(form: FormValue, spec: S, path = ""): Params<S> {
  const values = typeof form === "string" ? new Map<string, FormValue>() : form;
  const pathOf = (key: string) => (path === "" ? key : `${path}[${key}]`);

  for (const key of values.keys()) {
    if (!Object.hasOwn(spec, key)) {
      throw invalidRequest(
        `Received unknown parameter: ${pathOf(key)} (or one the Stripe simulator does not know)`,
        { code: "parameter_unknown", param: pathOf(key) },
      );
    }
  }

  const params: Record<string, unknown> = {};
  for (const [key, reader] of Object.entries(spec)) {
    const value = values.get(key);
    if (value !== undefined) {
      params[key] = ("required" in reader ? reader.required : reader)(value, pathOf(key));
    } else if ("required" in reader) {
      throw invalidRequest(`Missing required param: ${pathOf(key)}.`, {
        code: "parameter_missing",
        param: pathOf(key),
      });
    }
  }
  return params as Params<S>;
}
