import type { PostgrestError, SupabaseClient } from "@supabase/supabase-js";
import { expectData, type Client } from "./reader.ts";

interface Table<Row, Insert> {
  Row: Row;
  Insert: Insert;
  Update: Partial<Insert>;
  Relationships: [];
}

/** The sample application's own tables, which are not in this package's types. */
type SampleDatabase = {
  public: {
    Tables: {
      book_clubs: Table<
        { id: number; name: string; is_premium: boolean; account_id: string | null },
        { name: string; is_premium?: boolean; account_id?: string }
      >;
      club_members: Table<{ club_id: number; user_id: string }, { club_id: number }>;
    };
    Views: Record<string, never>;
    Functions: Record<string, never>;
  };
};

export type Refusal = Pick<PostgrestError, "code" | "message" | "details">;

/** What the application does with clubs. It asks for no permission: the database answers. */
export interface BookClubs {
  /** Names of the clubs row level security lets the user see. */
  names(): Promise<string[]>;
  /** Founds a club, for a team if one is named; null when it is there. */
  found(name: string, teamId?: string): Promise<Refusal | null>;
  close(name: string): Promise<void>;
  join(name: string): Promise<Refusal | null>;
  leave(name: string): Promise<void>;
}

export function bookClubs(client: Client): BookClubs {
  const app = (client as unknown as SupabaseClient<SampleDatabase>).schema("public");
  const idOf = async (name: string) =>
    expectData(name, await app.from("book_clubs").select("id").eq("name", name).single()).id;
  return {
    names: async () =>
      expectData("clubs", await app.from("book_clubs").select("name").order("name")).map(
        ({ name }) => name,
      ),
    found: async (name, teamId) =>
      (await app.from("book_clubs").insert(teamId ? { name, account_id: teamId } : { name })).error,
    close: async (name) => {
      const { error } = await app.from("book_clubs").delete().eq("name", name);
      if (error) throw new Error(`close ${name}: ${error.message}`);
    },
    join: async (name) =>
      (await app.from("club_members").insert({ club_id: await idOf(name) })).error,
    leave: async (name) => {
      const { error } = await app
        .from("club_members")
        .delete()
        .eq("club_id", await idOf(name));
      if (error) throw new Error(`leave ${name}: ${error.message}`);
    },
  };
}
