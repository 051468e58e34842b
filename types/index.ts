/**
 * Types of what pg-subscriptions exposes, for a typed Supabase client:
 *
 *     createClient<Database, "billing">(url, key, { db: { schema: "billing" } })
 */
export type {
  CompositeTypes,
  Database,
  Enums,
  Json,
  Tables,
  TablesInsert,
  TablesUpdate,
} from "./database.ts";
export type { ErrorCode } from "../supabase/functions/_shared/error_codes.ts";
