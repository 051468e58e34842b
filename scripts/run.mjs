#!/usr/bin/env node
// Runs one script of this folder: `node scripts/run.mjs <verb> [arguments]`.
//
// Plain JavaScript with no dependencies, because it is what installs them: a bare clone has only Node and npm.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function fail(message) {
  console.error(`✗ ${message}`);
  process.exit(1);
}

/** npm writes this file when an install has finished; it names every version that is there. */
function dependenciesAreCurrent() {
  const installed = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installed)) return false;
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const present = JSON.parse(readFileSync(installed, "utf8")).packages;
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === "" || entry.optional || entry.peer || present[path]?.version === entry.version,
  );
}

function installDependencies() {
  console.log("• Installing dependencies (npm ci) …");
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const result = spawnSync(npm, ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  if (result.status !== 0) fail("npm ci failed; its output is above.");
}

if (Number(process.versions.node.split(".")[0]) < 20) {
  fail(`Node 20 or newer is needed; this is ${process.version}.`);
}

const [verb, ...rest] = process.argv.slice(2);
const script = join(root, "scripts", `${verb}.ts`);
if (!verb || !existsSync(script)) fail(`There is no script "${verb ?? ""}" in scripts/.`);

if (!dependenciesAreCurrent()) installDependencies();

const child = spawn(
  process.execPath,
  ["--disable-warning=ExperimentalWarning", "--import", "tsx", script, ...rest],
  { cwd: root, stdio: "inherit" },
);
// Ctrl-C reaches the child through the terminal; this process only waits for its farewell.
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => signal === "SIGTERM" && child.kill("SIGTERM"));
}
child.on("exit", (code, signal) => process.exit(code ?? (signal ? 130 : 1)));
