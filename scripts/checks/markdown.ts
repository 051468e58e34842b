export interface MarkdownTable {
  line: number;
  /** Cells without the marks of code. */
  rows: { line: number; cells: string[] }[];
}

/** The first table whose header begins with these cells. */
export function tableWithHeader(text: string, header: string[]): MarkdownTable | undefined {
  const lines = text.split("\n");
  const start = lines.findIndex((line) => {
    const cells = cellsOf(line);
    return header.every((name, index) => cells[index]?.toLowerCase() === name.toLowerCase());
  });
  if (start === -1) return undefined;
  const rows: MarkdownTable["rows"] = [];
  for (let at = start + 2; lines[at]?.trimStart().startsWith("|"); at += 1) {
    rows.push({ line: at + 1, cells: cellsOf(lines[at] ?? "") });
  }
  return { line: start + 1, rows };
}

function cellsOf(line: string): string[] {
  if (!line.trimStart().startsWith("|")) return [];
  return line
    .trim()
    .replace(/^\||\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|").replaceAll("`", ""));
}
