import { sectionsOf, type Finding, type Section, type SourceFile } from "./sql.ts";

/**
 * Each migration opens with a frame, whose number and title are the file's name and whose Contents
 * list is the list of the section headings.
 */
export function checkContents(files: SourceFile[]): Finding[] {
  return files.flatMap((file) => [...checkTitle(file), ...checkList(file)]);
}

function checkTitle({ path, text }: SourceFile): Finding[] {
  const [number, ...words] = (path.split("/").at(-1) ?? "").replace(/\.sql$/, "").split("_");
  const expected = `-- ${number}  ${words.join(" ")}`;
  const [rule, title] = text.split("\n");
  if (!/^-- ={10,}$/.test(rule ?? "")) {
    return [{ path, line: 1, message: "the file does not open with its frame (-- =====)" }];
  }
  if (title === expected) return [];
  return [{ path, line: 2, message: `the frame's title is not "${expected}"` }];
}

function checkList({ path, text }: SourceFile): Finding[] {
  const listed = listedSections(text);
  const headings = sectionsOf(text);
  const findings: Finding[] = [];
  for (let at = 0; at < Math.max(listed.length, headings.length); at += 1) {
    const entry = listed[at];
    const heading = headings[at];
    if (entry && heading && label(entry) === label(heading)) continue;
    findings.push({
      path,
      line: heading?.line ?? entry?.line ?? 1,
      message: heading
        ? `heading "${label(heading)}" is listed in Contents as ${entry ? `"${label(entry)}"` : "nothing"}`
        : `Contents lists "${entry ? label(entry) : ""}", which has no section`,
    });
    // Everything after the first disagreement is shifted; naming it all would hide the cause.
    break;
  }
  return findings;
}

function label({ number, name }: Section): string {
  return `${number}  ${name}`;
}

/** An entry is `--   1  name`, then two or more spaces and a few words; those may go on below. */
function listedSections(text: string): Section[] {
  const lines = text.split("\n");
  const start = lines.findIndex((line) => /^-- Contents\b/.test(line));
  if (start === -1) return [];
  const listed: Section[] = [];
  for (let at = start + 1; at < lines.length; at += 1) {
    const line = lines[at] ?? "";
    if (!line.startsWith("--") || /^-- ={10,}$/.test(line)) break;
    const match = /^-- +(\d+(?:\.\d+)*) {2}(\S.*?)(?: {2,}.*)?$/.exec(line);
    if (match) listed.push({ line: at + 1, number: match[1] ?? "", name: match[2] ?? "" });
  }
  return listed;
}
