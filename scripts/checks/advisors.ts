import { resultsOf, supabase } from "./supabase-cli.ts";

interface Lint {
  name: string;
  level: string;
  detail: string;
}

interface FunctionIssues {
  function: string;
  issues: { level: string; message: string; statement?: { lineNumber: string; text: string } }[];
}

const schemas = ["billing", "billing_admin", "billing_private"];

/** `supabase db advisors` at every level; which schemas are exposed it reads from config.toml. */
export async function advisorFindings(url: string): Promise<string[]> {
  const result = await supabase([
    ...["db", "advisors", `--remote=${url}`, "--level", "info", "--output-format", "json"],
  ]);
  return (
    resultsOf<Lint>(result)
      // No index of a database that was made a moment ago has been used.
      .filter(({ name }) => name !== "unused_index")
      .map(({ name, level, detail }) => `${name} (${level}): ${detail}`)
  );
}

/** `supabase db lint`: plpgsql_check over every plpgsql function but triggers. */
export async function lintFindings(url: string): Promise<string[]> {
  const result = await supabase([
    ...["db", "lint", `--remote=${url}`, "--schema", schemas.join(), "--level", "warning"],
    ...["--output-format", "json"],
  ]);
  return resultsOf<FunctionIssues>(result).flatMap(({ function: name, issues }) =>
    issues.map(({ level, message, statement }) => {
      const place = statement ? ` (line ${statement.lineNumber}, ${statement.text})` : "";
      return `${name}: ${level}: ${message}${place}`;
    }),
  );
}
