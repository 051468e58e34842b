import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["supabase/tests/**/*.test.ts"],
    globalSetup: "supabase/tests/support/global-setup.ts",
    pool: "forks",
    // Two cores share the work with a Postgres, and a file may start servers of its own.
    maxWorkers: 2,
    // For what hangs: a busy machine takes its time.
    testTimeout: 60_000,
    hookTimeout: 90_000,
  },
});
