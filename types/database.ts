// Written by `npm run types` from the migrated database.

export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[];

export type Database = {
  billing: {
    Tables: {
      access_policies: {
        Row: {
          description: string;
          dispute_lost: string;
          dispute_opened: string;
          dispute_won: string;
          full_refund: string;
          key: string;
          partial_refund: string;
          paused: string;
        };
        ComputedFields: never;
        Insert: {
          description: string;
          dispute_lost?: string;
          dispute_opened?: string;
          dispute_won?: string;
          full_refund?: string;
          key: string;
          partial_refund?: string;
          paused?: string;
        };
        Update: {
          description?: string;
          dispute_lost?: string;
          dispute_opened?: string;
          dispute_won?: string;
          full_refund?: string;
          key?: string;
          partial_refund?: string;
          paused?: string;
        };
        Relationships: [];
      };
      access_restrictions: {
        Row: {
          access_level: string;
          account_id: string | null;
          begins_at: string;
          cause: string;
          created_at: string;
          id: string;
          lifted_at: string | null;
          periods_before: string;
          reference: string;
          subscription_id: string;
        };
        ComputedFields: never;
        Insert: {
          access_level: string;
          account_id?: string | null;
          begins_at: string;
          cause: string;
          created_at?: string;
          id?: string;
          lifted_at?: string | null;
          periods_before: string;
          reference: string;
          subscription_id: string;
        };
        Update: {
          access_level?: string;
          account_id?: string | null;
          begins_at?: string;
          cause?: string;
          created_at?: string;
          id?: string;
          lifted_at?: string | null;
          periods_before?: string;
          reference?: string;
          subscription_id?: string;
        };
        Relationships: [
          {
            foreignKeyName: "access_restrictions_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "access_restrictions_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
        ];
      };
      accounts: {
        Row: {
          closed_at: string | null;
          created_at: string;
          id: string;
          is_auth_user: boolean;
          kind: string;
          name: string | null;
        };
        ComputedFields: never;
        Insert: {
          closed_at?: string | null;
          created_at?: string;
          id?: string;
          is_auth_user?: boolean;
          kind?: string;
          name?: string | null;
        };
        Update: {
          closed_at?: string | null;
          created_at?: string;
          id?: string;
          is_auth_user?: boolean;
          kind?: string;
          name?: string | null;
        };
        Relationships: [];
      };
      checkout_sessions: {
        Row: {
          account_id: string;
          cancel_url: string;
          completed_at: string | null;
          created_at: string;
          discount_code_id: string | null;
          expires_at: string | null;
          failure: Json | null;
          id: string;
          price_id: string;
          quantity: number;
          status: string;
          stripe_promotion_code_id: string | null;
          stripe_session_id: string | null;
          stripe_subscription_id: string | null;
          success_url: string;
          trial_days: number;
          url: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          cancel_url: string;
          completed_at?: string | null;
          created_at?: string;
          discount_code_id?: string | null;
          expires_at?: string | null;
          failure?: Json | null;
          id?: string;
          price_id: string;
          quantity?: number;
          status?: string;
          stripe_promotion_code_id?: string | null;
          stripe_session_id?: string | null;
          stripe_subscription_id?: string | null;
          success_url: string;
          trial_days?: number;
          url?: string | null;
        };
        Update: {
          account_id?: string;
          cancel_url?: string;
          completed_at?: string | null;
          created_at?: string;
          discount_code_id?: string | null;
          expires_at?: string | null;
          failure?: Json | null;
          id?: string;
          price_id?: string;
          quantity?: number;
          status?: string;
          stripe_promotion_code_id?: string | null;
          stripe_session_id?: string | null;
          stripe_subscription_id?: string | null;
          success_url?: string;
          trial_days?: number;
          url?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "checkout_sessions_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "checkout_sessions_price_id_fkey";
            columns: ["price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
        ];
      };
      contract_features: {
        Row: {
          contract_id: string;
          feature_key: string;
          limit_value: number | null;
        };
        ComputedFields: never;
        Insert: {
          contract_id: string;
          feature_key: string;
          limit_value?: number | null;
        };
        Update: {
          contract_id?: string;
          feature_key?: string;
          limit_value?: number | null;
        };
        Relationships: [
          {
            foreignKeyName: "contract_features_contract_id_fkey";
            columns: ["contract_id"];
            isOneToOne: false;
            referencedRelation: "contracts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contract_features_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
        ];
      };
      contract_prices: {
        Row: {
          contract_id: string;
          feature_key: string | null;
          price_id: string;
          tiers: Json | null;
          tiers_mode: string | null;
          unit_amount_minor: number | null;
        };
        ComputedFields: never;
        Insert: {
          contract_id: string;
          feature_key?: string | null;
          price_id: string;
          tiers?: Json | null;
          tiers_mode?: string | null;
          unit_amount_minor?: number | null;
        };
        Update: {
          contract_id?: string;
          feature_key?: string | null;
          price_id?: string;
          tiers?: Json | null;
          tiers_mode?: string | null;
          unit_amount_minor?: number | null;
        };
        Relationships: [
          {
            foreignKeyName: "contract_prices_contract_id_fkey";
            columns: ["contract_id"];
            isOneToOne: false;
            referencedRelation: "contracts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contract_prices_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "contract_prices_price_id_fkey";
            columns: ["price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
        ];
      };
      contract_settlements: {
        Row: {
          account_id: string;
          charged_minor: number;
          committed_minor: number;
          contract_id: string;
          created_at: string;
          invoice_id: string | null;
          is_waived: boolean;
          late_minor: number;
          shortfall_minor: number;
          term_ends_at: string;
          term_starts_at: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          charged_minor: number;
          committed_minor: number;
          contract_id: string;
          created_at?: string;
          invoice_id?: string | null;
          is_waived?: boolean;
          late_minor?: number;
          shortfall_minor: number;
          term_ends_at: string;
          term_starts_at: string;
        };
        Update: {
          account_id?: string;
          charged_minor?: number;
          committed_minor?: number;
          contract_id?: string;
          created_at?: string;
          invoice_id?: string | null;
          is_waived?: boolean;
          late_minor?: number;
          shortfall_minor?: number;
          term_ends_at?: string;
          term_starts_at?: string;
        };
        Relationships: [
          {
            foreignKeyName: "contract_settlements_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contract_settlements_contract_id_fkey";
            columns: ["contract_id"];
            isOneToOne: false;
            referencedRelation: "contracts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contract_settlements_invoice_id_fkey";
            columns: ["invoice_id"];
            isOneToOne: false;
            referencedRelation: "invoices";
            referencedColumns: ["id"];
          },
        ];
      };
      contracts: {
        Row: {
          account_id: string;
          commitment_minor: number | null;
          created_at: string;
          end_reason: string | null;
          ended_at: string | null;
          ends_at: string;
          first_ends_at: string;
          id: string;
          in_force_until: string;
          is_commitment_waived: boolean;
          minimum_minor: number | null;
          notice_at: string | null;
          notice_days: number;
          payment_terms_days: number;
          price_id: string | null;
          quantity: number;
          reason: string;
          reference: string;
          starts_at: string;
          status: string;
          subscription_id: string | null;
          supersedes: string | null;
          term_months: number | null;
          term_starts_at: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          commitment_minor?: number | null;
          created_at?: string;
          end_reason?: string | null;
          ended_at?: string | null;
          ends_at: string;
          first_ends_at: string;
          id?: string;
          in_force_until?: never;
          is_commitment_waived?: boolean;
          minimum_minor?: number | null;
          notice_at?: string | null;
          notice_days?: number;
          payment_terms_days?: number;
          price_id?: string | null;
          quantity?: number;
          reason: string;
          reference: string;
          starts_at: string;
          status?: string;
          subscription_id?: string | null;
          supersedes?: string | null;
          term_months?: number | null;
          term_starts_at: string;
        };
        Update: {
          account_id?: string;
          commitment_minor?: number | null;
          created_at?: string;
          end_reason?: string | null;
          ended_at?: string | null;
          ends_at?: string;
          first_ends_at?: string;
          id?: string;
          in_force_until?: never;
          is_commitment_waived?: boolean;
          minimum_minor?: number | null;
          notice_at?: string | null;
          notice_days?: number;
          payment_terms_days?: number;
          price_id?: string | null;
          quantity?: number;
          reason?: string;
          reference?: string;
          starts_at?: string;
          status?: string;
          subscription_id?: string | null;
          supersedes?: string | null;
          term_months?: number | null;
          term_starts_at?: string;
        };
        Relationships: [
          {
            foreignKeyName: "contracts_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contracts_price_id_fkey";
            columns: ["price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contracts_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "contracts_supersedes_fkey";
            columns: ["supersedes"];
            isOneToOne: true;
            referencedRelation: "contracts";
            referencedColumns: ["id"];
          },
        ];
      };
      coupons: {
        Row: {
          amount_off_minor: number | null;
          created_at: string;
          currency: string | null;
          deleted_at: string | null;
          duration: string | null;
          duration_in_months: number | null;
          id: string;
          is_valid: boolean;
          max_redemptions: number | null;
          name: string | null;
          percent_off: number | null;
          redeem_until: string | null;
          stripe_coupon_id: string;
          times_redeemed: number;
        };
        ComputedFields: never;
        Insert: {
          amount_off_minor?: number | null;
          created_at?: string;
          currency?: string | null;
          deleted_at?: string | null;
          duration?: string | null;
          duration_in_months?: number | null;
          id?: string;
          is_valid?: boolean;
          max_redemptions?: number | null;
          name?: string | null;
          percent_off?: number | null;
          redeem_until?: string | null;
          stripe_coupon_id: string;
          times_redeemed?: number;
        };
        Update: {
          amount_off_minor?: number | null;
          created_at?: string;
          currency?: string | null;
          deleted_at?: string | null;
          duration?: string | null;
          duration_in_months?: number | null;
          id?: string;
          is_valid?: boolean;
          max_redemptions?: number | null;
          name?: string | null;
          percent_off?: number | null;
          redeem_until?: string | null;
          stripe_coupon_id?: string;
          times_redeemed?: number;
        };
        Relationships: [];
      };
      credit_notes: {
        Row: {
          account_id: string | null;
          after_payment_minor: number;
          amount_minor: number;
          before_payment_minor: number;
          created_at: string;
          currency: string;
          effective_at: string | null;
          id: string;
          issued_at: string | null;
          memo: string | null;
          number: string | null;
          out_of_band_minor: number;
          pdf_url: string | null;
          reason: string | null;
          status: string | null;
          stripe_credit_note_id: string;
          stripe_customer_id: string | null;
          stripe_invoice_id: string | null;
          stripe_refund_ids: string[];
          voided_at: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          after_payment_minor?: number;
          amount_minor: number;
          before_payment_minor?: number;
          created_at?: string;
          currency: string;
          effective_at?: string | null;
          id?: string;
          issued_at?: string | null;
          memo?: string | null;
          number?: string | null;
          out_of_band_minor?: number;
          pdf_url?: string | null;
          reason?: string | null;
          status?: string | null;
          stripe_credit_note_id: string;
          stripe_customer_id?: string | null;
          stripe_invoice_id?: string | null;
          stripe_refund_ids?: string[];
          voided_at?: string | null;
        };
        Update: {
          account_id?: string | null;
          after_payment_minor?: number;
          amount_minor?: number;
          before_payment_minor?: number;
          created_at?: string;
          currency?: string;
          effective_at?: string | null;
          id?: string;
          issued_at?: string | null;
          memo?: string | null;
          number?: string | null;
          out_of_band_minor?: number;
          pdf_url?: string | null;
          reason?: string | null;
          status?: string | null;
          stripe_credit_note_id?: string;
          stripe_customer_id?: string | null;
          stripe_invoice_id?: string | null;
          stripe_refund_ids?: string[];
          voided_at?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "credit_notes_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      customers: {
        Row: {
          account_id: string | null;
          created_at: string;
          currency: string | null;
          deleted_at: string | null;
          email: string | null;
          id: string;
          is_delinquent: boolean;
          is_primary: boolean;
          name: string | null;
          stripe_customer_id: string | null;
          stripe_default_payment_method_id: string | null;
          told_email: string | null;
          told_name: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          created_at?: string;
          currency?: string | null;
          deleted_at?: string | null;
          email?: string | null;
          id?: string;
          is_delinquent?: boolean;
          is_primary?: boolean;
          name?: string | null;
          stripe_customer_id?: string | null;
          stripe_default_payment_method_id?: string | null;
          told_email?: string | null;
          told_name?: string | null;
        };
        Update: {
          account_id?: string | null;
          created_at?: string;
          currency?: string | null;
          deleted_at?: string | null;
          email?: string | null;
          id?: string;
          is_delinquent?: boolean;
          is_primary?: boolean;
          name?: string | null;
          stripe_customer_id?: string | null;
          stripe_default_payment_method_id?: string | null;
          told_email?: string | null;
          told_name?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "customers_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      discount_redemptions: {
        Row: {
          account_id: string;
          checkout_id: string | null;
          created_at: string;
          discount_code_id: string;
          ended_at: string | null;
          id: string;
          period_base_minor: number;
          period_off_minor: number;
          periods_used: number;
          status: string;
          subscription_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          checkout_id?: string | null;
          created_at?: string;
          discount_code_id: string;
          ended_at?: string | null;
          id?: string;
          period_base_minor?: number;
          period_off_minor?: number;
          periods_used?: number;
          status: string;
          subscription_id?: string | null;
        };
        Update: {
          account_id?: string;
          checkout_id?: string | null;
          created_at?: string;
          discount_code_id?: string;
          ended_at?: string | null;
          id?: string;
          period_base_minor?: number;
          period_off_minor?: number;
          periods_used?: number;
          status?: string;
          subscription_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "discount_redemptions_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "discount_redemptions_checkout_id_fkey";
            columns: ["checkout_id"];
            isOneToOne: true;
            referencedRelation: "checkout_sessions";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "discount_redemptions_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
        ];
      };
      discounts: {
        Row: {
          account_id: string | null;
          created_at: string;
          ends_at: string | null;
          id: string;
          is_listed: boolean;
          removed_at: string | null;
          starts_at: string | null;
          stripe_coupon_id: string | null;
          stripe_customer_id: string | null;
          stripe_discount_id: string;
          stripe_promotion_code_id: string | null;
          stripe_subscription_id: string | null;
          stripe_subscription_item_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          created_at?: string;
          ends_at?: string | null;
          id?: string;
          is_listed?: boolean;
          removed_at?: string | null;
          starts_at?: string | null;
          stripe_coupon_id?: string | null;
          stripe_customer_id?: string | null;
          stripe_discount_id: string;
          stripe_promotion_code_id?: string | null;
          stripe_subscription_id?: string | null;
          stripe_subscription_item_id?: string | null;
        };
        Update: {
          account_id?: string | null;
          created_at?: string;
          ends_at?: string | null;
          id?: string;
          is_listed?: boolean;
          removed_at?: string | null;
          starts_at?: string | null;
          stripe_coupon_id?: string | null;
          stripe_customer_id?: string | null;
          stripe_discount_id?: string;
          stripe_promotion_code_id?: string | null;
          stripe_subscription_id?: string | null;
          stripe_subscription_item_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "discounts_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      disputes: {
        Row: {
          account_id: string | null;
          amount_minor: number;
          created_at: string;
          currency: string;
          decided_at: string | null;
          disputed_at: string | null;
          evidence_due_at: string | null;
          has_evidence: boolean;
          id: string;
          is_refundable: boolean;
          is_withdrawn: boolean;
          lost_at: string | null;
          network_reason_code: string | null;
          reason: string | null;
          returned_at: string | null;
          status: string | null;
          stripe_charge_id: string | null;
          stripe_dispute_id: string;
          stripe_payment_key: string | null;
          updated_at: string;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          amount_minor: number;
          created_at?: string;
          currency: string;
          decided_at?: string | null;
          disputed_at?: string | null;
          evidence_due_at?: string | null;
          has_evidence?: boolean;
          id?: string;
          is_refundable?: boolean;
          is_withdrawn?: boolean;
          lost_at?: string | null;
          network_reason_code?: string | null;
          reason?: string | null;
          returned_at?: string | null;
          status?: string | null;
          stripe_charge_id?: string | null;
          stripe_dispute_id: string;
          stripe_payment_key?: string | null;
          updated_at?: string;
        };
        Update: {
          account_id?: string | null;
          amount_minor?: number;
          created_at?: string;
          currency?: string;
          decided_at?: string | null;
          disputed_at?: string | null;
          evidence_due_at?: string | null;
          has_evidence?: boolean;
          id?: string;
          is_refundable?: boolean;
          is_withdrawn?: boolean;
          lost_at?: string | null;
          network_reason_code?: string | null;
          reason?: string | null;
          returned_at?: string | null;
          status?: string | null;
          stripe_charge_id?: string | null;
          stripe_dispute_id?: string;
          stripe_payment_key?: string | null;
          updated_at?: string;
        };
        Relationships: [
          {
            foreignKeyName: "disputes_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      dunning_cases: {
        Row: {
          account_id: string | null;
          blocked_by: string | null;
          closed_at: string | null;
          created_at: string;
          due_at: string | null;
          id: string;
          invoice_id: string;
          last_retry_at: string | null;
          next_retry_at: string | null;
          next_stage_at: string | null;
          opened_at: string;
          policy_key: string;
          retries: number;
          runs_from: string;
          stage: string | null;
          status: string;
          subscription_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          blocked_by?: string | null;
          closed_at?: string | null;
          created_at?: string;
          due_at?: string | null;
          id?: string;
          invoice_id: string;
          last_retry_at?: string | null;
          next_retry_at?: string | null;
          next_stage_at?: string | null;
          opened_at: string;
          policy_key: string;
          retries?: number;
          runs_from: string;
          stage?: string | null;
          status: string;
          subscription_id?: string | null;
        };
        Update: {
          account_id?: string | null;
          blocked_by?: string | null;
          closed_at?: string | null;
          created_at?: string;
          due_at?: string | null;
          id?: string;
          invoice_id?: string;
          last_retry_at?: string | null;
          next_retry_at?: string | null;
          next_stage_at?: string | null;
          opened_at?: string;
          policy_key?: string;
          retries?: number;
          runs_from?: string;
          stage?: string | null;
          status?: string;
          subscription_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "dunning_cases_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "dunning_cases_invoice_id_fkey";
            columns: ["invoice_id"];
            isOneToOne: true;
            referencedRelation: "invoices";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "dunning_cases_policy_key_fkey";
            columns: ["policy_key"];
            isOneToOne: false;
            referencedRelation: "dunning_policies";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "dunning_cases_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
        ];
      };
      dunning_events: {
        Row: {
          account_id: string | null;
          action: string;
          case_id: string;
          command_id: string | null;
          id: string;
          occurred_at: string;
          planned_at: string;
          stage_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          action: string;
          case_id: string;
          command_id?: string | null;
          id?: string;
          occurred_at?: string;
          planned_at: string;
          stage_id?: string | null;
        };
        Update: {
          account_id?: string | null;
          action?: string;
          case_id?: string;
          command_id?: string | null;
          id?: string;
          occurred_at?: string;
          planned_at?: string;
          stage_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "dunning_events_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "dunning_events_case_id_fkey";
            columns: ["case_id"];
            isOneToOne: false;
            referencedRelation: "dunning_cases";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "dunning_events_stage_id_fkey";
            columns: ["stage_id"];
            isOneToOne: false;
            referencedRelation: "dunning_stages";
            referencedColumns: ["id"];
          },
        ];
      };
      dunning_policies: {
        Row: {
          description: string;
          key: string;
          max_retries: number;
          retry_offsets: string[] | null;
          retry_window: string;
        };
        ComputedFields: never;
        Insert: {
          description: string;
          key: string;
          max_retries?: number;
          retry_offsets?: string[] | null;
          retry_window?: string;
        };
        Update: {
          description?: string;
          key?: string;
          max_retries?: number;
          retry_offsets?: string[] | null;
          retry_window?: string;
        };
        Relationships: [];
      };
      dunning_stages: {
        Row: {
          action: string;
          begins_after: string;
          id: string;
          policy_key: string;
        };
        ComputedFields: never;
        Insert: {
          action: string;
          begins_after: string;
          id?: string;
          policy_key: string;
        };
        Update: {
          action?: string;
          begins_after?: string;
          id?: string;
          policy_key?: string;
        };
        Relationships: [
          {
            foreignKeyName: "dunning_stages_policy_key_fkey";
            columns: ["policy_key"];
            isOneToOne: false;
            referencedRelation: "dunning_policies";
            referencedColumns: ["key"];
          },
        ];
      };
      entitlement_grants: {
        Row: {
          account_id: string;
          created_at: string;
          feature_key: string;
          granted_by: string | null;
          id: string;
          kind: string;
          limit_value: number | null;
          reason: string;
          revoked_at: string | null;
          revoked_reason: string | null;
          valid_from: string;
          valid_until: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          created_at?: string;
          feature_key: string;
          granted_by?: string | null;
          id?: string;
          kind?: string;
          limit_value?: number | null;
          reason: string;
          revoked_at?: string | null;
          revoked_reason?: string | null;
          valid_from: string;
          valid_until?: string;
        };
        Update: {
          account_id?: string;
          created_at?: string;
          feature_key?: string;
          granted_by?: string | null;
          id?: string;
          kind?: string;
          limit_value?: number | null;
          reason?: string;
          revoked_at?: string | null;
          revoked_reason?: string | null;
          valid_from?: string;
          valid_until?: string;
        };
        Relationships: [
          {
            foreignKeyName: "entitlement_grants_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "entitlement_grants_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
        ];
      };
      entitlements: {
        Row: {
          access_level: string;
          account_id: string;
          feature_key: string;
          limit_value: number | null;
          plan_id: string | null;
          recorded_at: string;
          source_id: string;
          source_kind: string;
          store_key: string | null;
          valid_from: string;
          valid_until: string;
        };
        ComputedFields: never;
        Insert: {
          access_level?: string;
          account_id: string;
          feature_key: string;
          limit_value?: number | null;
          plan_id?: string | null;
          recorded_at?: string;
          source_id: string;
          source_kind: string;
          store_key?: string | null;
          valid_from: string;
          valid_until: string;
        };
        Update: {
          access_level?: string;
          account_id?: string;
          feature_key?: string;
          limit_value?: number | null;
          plan_id?: string | null;
          recorded_at?: string;
          source_id?: string;
          source_kind?: string;
          store_key?: string | null;
          valid_from?: string;
          valid_until?: string;
        };
        Relationships: [
          {
            foreignKeyName: "entitlements_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "entitlements_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "entitlements_plan_id_fkey";
            columns: ["plan_id"];
            isOneToOne: false;
            referencedRelation: "plans";
            referencedColumns: ["id"];
          },
        ];
      };
      error_codes: {
        Row: {
          code: string;
          hint: string;
          message: string;
          status: number;
        };
        ComputedFields: never;
        Insert: {
          code: string;
          hint: string;
          message: string;
          status: number;
        };
        Update: {
          code?: string;
          hint?: string;
          message?: string;
          status?: number;
        };
        Relationships: [];
      };
      external_identities: {
        Row: {
          created_at: string;
          issuer: string;
          subject: string;
          user_id: string;
        };
        ComputedFields: never;
        Insert: {
          created_at?: string;
          issuer: string;
          subject: string;
          user_id: string;
        };
        Update: {
          created_at?: string;
          issuer?: string;
          subject?: string;
          user_id?: string;
        };
        Relationships: [];
      };
      features: {
        Row: {
          aggregation: string;
          alert_percents: number[];
          clients_may_consume: boolean;
          counts_rows: boolean;
          created_at: string;
          description: string | null;
          key: string;
          kind: string;
          name: string;
          stripe_event_name: string | null;
        };
        ComputedFields: never;
        Insert: {
          aggregation?: string;
          alert_percents?: number[];
          clients_may_consume?: boolean;
          counts_rows?: boolean;
          created_at?: string;
          description?: string | null;
          key: string;
          kind?: string;
          name: string;
          stripe_event_name?: string | null;
        };
        Update: {
          aggregation?: string;
          alert_percents?: number[];
          clients_may_consume?: boolean;
          counts_rows?: boolean;
          created_at?: string;
          description?: string | null;
          key?: string;
          kind?: string;
          name?: string;
          stripe_event_name?: string | null;
        };
        Relationships: [];
      };
      hook_events: {
        Row: {
          account_id: string;
          data: NonNullable<Json>;
          fact: string;
          id: string;
          occurred_at: string;
          position: number | null;
          type: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          data: NonNullable<Json>;
          fact: string;
          id?: string;
          occurred_at?: string;
          position?: number | null;
          type: string;
        };
        Update: {
          account_id?: string;
          data?: NonNullable<Json>;
          fact?: string;
          id?: string;
          occurred_at?: string;
          position?: number | null;
          type?: string;
        };
        Relationships: [
          {
            foreignKeyName: "hook_events_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      invitations: {
        Row: {
          accepted_at: string | null;
          accepted_by: string | null;
          account_id: string;
          created_at: string;
          email: string;
          expires_at: string;
          id: string;
          invited_by: string | null;
          revoked_at: string | null;
          role: string;
        };
        ComputedFields: never;
        Insert: {
          accepted_at?: string | null;
          accepted_by?: string | null;
          account_id: string;
          created_at?: string;
          email: string;
          expires_at: string;
          id?: string;
          invited_by?: string | null;
          revoked_at?: string | null;
          role: string;
        };
        Update: {
          accepted_at?: string | null;
          accepted_by?: string | null;
          account_id?: string;
          created_at?: string;
          email?: string;
          expires_at?: string;
          id?: string;
          invited_by?: string | null;
          revoked_at?: string | null;
          role?: string;
        };
        Relationships: [
          {
            foreignKeyName: "invitations_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      invoice_lines: {
        Row: {
          amount_minor: number;
          currency: string;
          description: string | null;
          discount_minor: number;
          id: string;
          invoice_id: string;
          is_proration: boolean;
          period_end: string | null;
          period_start: string | null;
          quantity: number | null;
          stripe_line_id: string | null;
          stripe_price_id: string | null;
          stripe_subscription_item_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          amount_minor: number;
          currency: string;
          description?: string | null;
          discount_minor?: number;
          id?: string;
          invoice_id: string;
          is_proration?: boolean;
          period_end?: string | null;
          period_start?: string | null;
          quantity?: number | null;
          stripe_line_id?: string | null;
          stripe_price_id?: string | null;
          stripe_subscription_item_id?: string | null;
        };
        Update: {
          amount_minor?: number;
          currency?: string;
          description?: string | null;
          discount_minor?: number;
          id?: string;
          invoice_id?: string;
          is_proration?: boolean;
          period_end?: string | null;
          period_start?: string | null;
          quantity?: number | null;
          stripe_line_id?: string | null;
          stripe_price_id?: string | null;
          stripe_subscription_item_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "invoice_lines_invoice_id_fkey";
            columns: ["invoice_id"];
            isOneToOne: false;
            referencedRelation: "invoices";
            referencedColumns: ["id"];
          },
        ];
      };
      invoices: {
        Row: {
          account_id: string | null;
          action_required_at: string | null;
          amount_due_minor: number;
          amount_overpaid_minor: number;
          amount_paid_minor: number;
          amount_remaining_minor: number;
          attempt_count: number;
          billing_reason: string | null;
          collection_method: string | null;
          created_at: string;
          currency: string;
          deleted_at: string | null;
          discount_minor: number;
          due_at: string | null;
          finalization_error: Json | null;
          finalized_at: string | null;
          hosted_invoice_url: string | null;
          id: string;
          invoice_pdf_url: string | null;
          issued_at: string | null;
          marked_uncollectible_at: string | null;
          next_payment_attempt_at: string | null;
          number: string | null;
          paid_at: string | null;
          payment_failed_at: string | null;
          status: string | null;
          stripe_customer_id: string | null;
          stripe_invoice_id: string | null;
          stripe_subscription_id: string | null;
          subscription_id: string | null;
          subtotal_minor: number;
          tax_minor: number;
          total_minor: number;
          uncollectible_reason: string | null;
          voided_at: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          action_required_at?: string | null;
          amount_due_minor: number;
          amount_overpaid_minor?: number;
          amount_paid_minor: number;
          amount_remaining_minor: number;
          attempt_count?: number;
          billing_reason?: string | null;
          collection_method?: string | null;
          created_at?: string;
          currency: string;
          deleted_at?: string | null;
          discount_minor?: number;
          due_at?: string | null;
          finalization_error?: Json | null;
          finalized_at?: string | null;
          hosted_invoice_url?: string | null;
          id?: string;
          invoice_pdf_url?: string | null;
          issued_at?: string | null;
          marked_uncollectible_at?: string | null;
          next_payment_attempt_at?: string | null;
          number?: string | null;
          paid_at?: string | null;
          payment_failed_at?: string | null;
          status?: string | null;
          stripe_customer_id?: string | null;
          stripe_invoice_id?: string | null;
          stripe_subscription_id?: string | null;
          subscription_id?: string | null;
          subtotal_minor: number;
          tax_minor?: number;
          total_minor: number;
          uncollectible_reason?: string | null;
          voided_at?: string | null;
        };
        Update: {
          account_id?: string | null;
          action_required_at?: string | null;
          amount_due_minor?: number;
          amount_overpaid_minor?: number;
          amount_paid_minor?: number;
          amount_remaining_minor?: number;
          attempt_count?: number;
          billing_reason?: string | null;
          collection_method?: string | null;
          created_at?: string;
          currency?: string;
          deleted_at?: string | null;
          discount_minor?: number;
          due_at?: string | null;
          finalization_error?: Json | null;
          finalized_at?: string | null;
          hosted_invoice_url?: string | null;
          id?: string;
          invoice_pdf_url?: string | null;
          issued_at?: string | null;
          marked_uncollectible_at?: string | null;
          next_payment_attempt_at?: string | null;
          number?: string | null;
          paid_at?: string | null;
          payment_failed_at?: string | null;
          status?: string | null;
          stripe_customer_id?: string | null;
          stripe_invoice_id?: string | null;
          stripe_subscription_id?: string | null;
          subscription_id?: string | null;
          subtotal_minor?: number;
          tax_minor?: number;
          total_minor?: number;
          uncollectible_reason?: string | null;
          voided_at?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "invoices_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "invoices_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
        ];
      };
      memberships: {
        Row: {
          account_id: string;
          created_at: string;
          role: string;
          updated_at: string;
          user_id: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          created_at?: string;
          role: string;
          updated_at?: string;
          user_id: string;
        };
        Update: {
          account_id?: string;
          created_at?: string;
          role?: string;
          updated_at?: string;
          user_id?: string;
        };
        Relationships: [
          {
            foreignKeyName: "memberships_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      payment_methods: {
        Row: {
          account_id: string | null;
          card_brand: string | null;
          card_exp_month: number | null;
          card_exp_year: number | null;
          card_last4: string | null;
          created_at: string;
          detached_at: string | null;
          fingerprint_hash: string | null;
          id: string;
          stripe_customer_id: string | null;
          stripe_payment_method_id: string;
          type: string;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          card_brand?: string | null;
          card_exp_month?: number | null;
          card_exp_year?: number | null;
          card_last4?: string | null;
          created_at?: string;
          detached_at?: string | null;
          fingerprint_hash?: string | null;
          id?: string;
          stripe_customer_id?: string | null;
          stripe_payment_method_id: string;
          type: string;
        };
        Update: {
          account_id?: string | null;
          card_brand?: string | null;
          card_exp_month?: number | null;
          card_exp_year?: number | null;
          card_last4?: string | null;
          created_at?: string;
          detached_at?: string | null;
          fingerprint_hash?: string | null;
          id?: string;
          stripe_customer_id?: string | null;
          stripe_payment_method_id?: string;
          type?: string;
        };
        Relationships: [
          {
            foreignKeyName: "payment_methods_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      payments: {
        Row: {
          account_id: string | null;
          amount_minor: number;
          amount_received_minor: number;
          amount_refunded_minor: number;
          created_at: string;
          currency: string;
          decline_code: string | null;
          failure_code: string | null;
          failure_message: string | null;
          id: string;
          invoice_id: string | null;
          is_disputed: boolean;
          method: string | null;
          paid_at: string | null;
          reference: string | null;
          status: string | null;
          stripe_charge_id: string | null;
          stripe_customer_id: string | null;
          stripe_invoice_id: string | null;
          stripe_payment_key: string | null;
          stripe_payment_method_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          amount_minor: number;
          amount_received_minor?: number;
          amount_refunded_minor?: number;
          created_at?: string;
          currency: string;
          decline_code?: string | null;
          failure_code?: string | null;
          failure_message?: string | null;
          id?: string;
          invoice_id?: string | null;
          is_disputed?: boolean;
          method?: string | null;
          paid_at?: string | null;
          reference?: string | null;
          status?: string | null;
          stripe_charge_id?: string | null;
          stripe_customer_id?: string | null;
          stripe_invoice_id?: string | null;
          stripe_payment_key?: string | null;
          stripe_payment_method_id?: string | null;
        };
        Update: {
          account_id?: string | null;
          amount_minor?: number;
          amount_received_minor?: number;
          amount_refunded_minor?: number;
          created_at?: string;
          currency?: string;
          decline_code?: string | null;
          failure_code?: string | null;
          failure_message?: string | null;
          id?: string;
          invoice_id?: string | null;
          is_disputed?: boolean;
          method?: string | null;
          paid_at?: string | null;
          reference?: string | null;
          status?: string | null;
          stripe_charge_id?: string | null;
          stripe_customer_id?: string | null;
          stripe_invoice_id?: string | null;
          stripe_payment_key?: string | null;
          stripe_payment_method_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "payments_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "payments_invoice_id_fkey";
            columns: ["invoice_id"];
            isOneToOne: false;
            referencedRelation: "invoices";
            referencedColumns: ["id"];
          },
        ];
      };
      plan_features: {
        Row: {
          feature_key: string;
          limit_value: number | null;
          on_plan_change: string;
          overage: string;
          overage_limit: number | null;
          plan_id: string;
          resets_every: string | null;
          rollover_cap: number;
          rollover_floor: number;
          version: number;
        };
        ComputedFields: never;
        Insert: {
          feature_key: string;
          limit_value?: number | null;
          on_plan_change?: string;
          overage?: string;
          overage_limit?: number | null;
          plan_id: string;
          resets_every?: string | null;
          rollover_cap?: number;
          rollover_floor?: number;
          version?: number;
        };
        Update: {
          feature_key?: string;
          limit_value?: number | null;
          on_plan_change?: string;
          overage?: string;
          overage_limit?: number | null;
          plan_id?: string;
          resets_every?: string | null;
          rollover_cap?: number;
          rollover_floor?: number;
          version?: number;
        };
        Relationships: [
          {
            foreignKeyName: "plan_features_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "plan_features_plan_id_fkey";
            columns: ["plan_id"];
            isOneToOne: false;
            referencedRelation: "plans";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "plan_features_plan_id_version_fkey";
            columns: ["plan_id", "version"];
            isOneToOne: false;
            referencedRelation: "plan_versions";
            referencedColumns: ["plan_id", "version"];
          },
        ];
      };
      plan_versions: {
        Row: {
          plan_id: string;
          published_at: string;
          reason: string | null;
          version: number;
        };
        ComputedFields: never;
        Insert: {
          plan_id: string;
          published_at?: string;
          reason?: string | null;
          version: number;
        };
        Update: {
          plan_id?: string;
          published_at?: string;
          reason?: string | null;
          version?: number;
        };
        Relationships: [
          {
            foreignKeyName: "plan_versions_plan_id_fkey";
            columns: ["plan_id"];
            isOneToOne: false;
            referencedRelation: "plans";
            referencedColumns: ["id"];
          },
        ];
      };
      plans: {
        Row: {
          access_policy_key: string;
          created_at: string;
          description: string | null;
          dunning_policy_key: string;
          id: string;
          is_active: boolean;
          is_listed: boolean;
          key: string;
          kind: string;
          name: string;
          past_due_grace: string;
          renewal_grace: string;
          seat_policy: string;
          store_id: string | null;
          stripe_product_id: string | null;
          tier: string | null;
          tier_rank: number;
          version: number;
        };
        ComputedFields: never;
        Insert: {
          access_policy_key?: string;
          created_at?: string;
          description?: string | null;
          dunning_policy_key?: string;
          id?: string;
          is_active?: boolean;
          is_listed?: boolean;
          key: string;
          kind?: string;
          name: string;
          past_due_grace?: string;
          renewal_grace?: string;
          seat_policy?: string;
          store_id?: string | null;
          stripe_product_id?: string | null;
          tier?: string | null;
          tier_rank?: number;
          version?: number;
        };
        Update: {
          access_policy_key?: string;
          created_at?: string;
          description?: string | null;
          dunning_policy_key?: string;
          id?: string;
          is_active?: boolean;
          is_listed?: boolean;
          key?: string;
          kind?: string;
          name?: string;
          past_due_grace?: string;
          renewal_grace?: string;
          seat_policy?: string;
          store_id?: string | null;
          stripe_product_id?: string | null;
          tier?: string | null;
          tier_rank?: number;
          version?: number;
        };
        Relationships: [
          {
            foreignKeyName: "plans_access_policy_key_fkey";
            columns: ["access_policy_key"];
            isOneToOne: false;
            referencedRelation: "access_policies";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "plans_dunning_policy_key_fkey";
            columns: ["dunning_policy_key"];
            isOneToOne: false;
            referencedRelation: "dunning_policies";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "plans_store_id_fkey";
            columns: ["store_id"];
            isOneToOne: false;
            referencedRelation: "stores";
            referencedColumns: ["id"];
          },
        ];
      };
      prices: {
        Row: {
          billing_interval: string | null;
          billing_scheme: string;
          created_at: string;
          currency: string;
          id: string;
          interval_count: number;
          is_active: boolean;
          is_listed: boolean;
          key: string | null;
          package_rounding: string | null;
          package_size: number | null;
          plan_id: string | null;
          replaced_by: string | null;
          stripe_meter_id: string | null;
          stripe_price_id: string | null;
          stripe_product_id: string | null;
          tiers: Json | null;
          tiers_mode: string | null;
          trial_days: number | null;
          unit_amount_decimal: number | null;
          unit_amount_minor: number | null;
          usage_type: string;
        };
        ComputedFields: never;
        Insert: {
          billing_interval?: string | null;
          billing_scheme?: string;
          created_at?: string;
          currency: string;
          id?: string;
          interval_count?: number;
          is_active?: boolean;
          is_listed?: boolean;
          key?: string | null;
          package_rounding?: string | null;
          package_size?: number | null;
          plan_id?: string | null;
          replaced_by?: string | null;
          stripe_meter_id?: string | null;
          stripe_price_id?: string | null;
          stripe_product_id?: string | null;
          tiers?: Json | null;
          tiers_mode?: string | null;
          trial_days?: number | null;
          unit_amount_decimal?: number | null;
          unit_amount_minor?: number | null;
          usage_type?: string;
        };
        Update: {
          billing_interval?: string | null;
          billing_scheme?: string;
          created_at?: string;
          currency?: string;
          id?: string;
          interval_count?: number;
          is_active?: boolean;
          is_listed?: boolean;
          key?: string | null;
          package_rounding?: string | null;
          package_size?: number | null;
          plan_id?: string | null;
          replaced_by?: string | null;
          stripe_meter_id?: string | null;
          stripe_price_id?: string | null;
          stripe_product_id?: string | null;
          tiers?: Json | null;
          tiers_mode?: string | null;
          trial_days?: number | null;
          unit_amount_decimal?: number | null;
          unit_amount_minor?: number | null;
          usage_type?: string;
        };
        Relationships: [
          {
            foreignKeyName: "prices_plan_id_fkey";
            columns: ["plan_id"];
            isOneToOne: false;
            referencedRelation: "plans";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "prices_replaced_by_fkey";
            columns: ["replaced_by"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
        ];
      };
      profiles: {
        Row: {
          access_until: string | null;
          account_id: string;
          features: string[];
          membership_tier: string | null;
          tier_rank: number;
          updated_at: string;
        };
        ComputedFields: never;
        Insert: {
          access_until?: string | null;
          account_id: string;
          features?: string[];
          membership_tier?: string | null;
          tier_rank?: number;
          updated_at?: string;
        };
        Update: {
          access_until?: string | null;
          account_id?: string;
          features?: string[];
          membership_tier?: string | null;
          tier_rank?: number;
          updated_at?: string;
        };
        Relationships: [
          {
            foreignKeyName: "profiles_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: true;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      refunds: {
        Row: {
          account_id: string | null;
          amount_minor: number;
          created_at: string;
          currency: string;
          failure_reason: string | null;
          id: string;
          reason: string | null;
          refunded_at: string | null;
          returned_at: string | null;
          status: string | null;
          stripe_payment_key: string | null;
          stripe_refund_id: string;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          amount_minor: number;
          created_at?: string;
          currency: string;
          failure_reason?: string | null;
          id?: string;
          reason?: string | null;
          refunded_at?: string | null;
          returned_at?: string | null;
          status?: string | null;
          stripe_payment_key?: string | null;
          stripe_refund_id: string;
        };
        Update: {
          account_id?: string | null;
          amount_minor?: number;
          created_at?: string;
          currency?: string;
          failure_reason?: string | null;
          id?: string;
          reason?: string | null;
          refunded_at?: string | null;
          returned_at?: string | null;
          status?: string | null;
          stripe_payment_key?: string | null;
          stripe_refund_id?: string;
        };
        Relationships: [
          {
            foreignKeyName: "refunds_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      role_permissions: {
        Row: {
          permission: string;
          role: string;
        };
        ComputedFields: never;
        Insert: {
          permission: string;
          role: string;
        };
        Update: {
          permission?: string;
          role?: string;
        };
        Relationships: [];
      };
      setup_intents: {
        Row: {
          account_id: string | null;
          cancellation_reason: string | null;
          created_at: string;
          decline_code: string | null;
          failure_code: string | null;
          failure_message: string | null;
          id: string;
          status: string | null;
          stripe_customer_id: string | null;
          stripe_payment_method_id: string | null;
          stripe_setup_intent_id: string;
          usage: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          cancellation_reason?: string | null;
          created_at?: string;
          decline_code?: string | null;
          failure_code?: string | null;
          failure_message?: string | null;
          id?: string;
          status?: string | null;
          stripe_customer_id?: string | null;
          stripe_payment_method_id?: string | null;
          stripe_setup_intent_id: string;
          usage?: string | null;
        };
        Update: {
          account_id?: string | null;
          cancellation_reason?: string | null;
          created_at?: string;
          decline_code?: string | null;
          failure_code?: string | null;
          failure_message?: string | null;
          id?: string;
          status?: string | null;
          stripe_customer_id?: string | null;
          stripe_payment_method_id?: string | null;
          stripe_setup_intent_id?: string;
          usage?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "setup_intents_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      stores: {
        Row: {
          created_at: string;
          id: string;
          is_active: boolean;
          key: string;
          name: string;
        };
        ComputedFields: never;
        Insert: {
          created_at?: string;
          id?: string;
          is_active?: boolean;
          key: string;
          name: string;
        };
        Update: {
          created_at?: string;
          id?: string;
          is_active?: boolean;
          key?: string;
          name?: string;
        };
        Relationships: [];
      };
      stripe_entitlements: {
        Row: {
          account_id: string | null;
          created_at: string;
          id: string;
          lookup_key: string | null;
          stripe_customer_id: string | null;
          stripe_entitlement_id: string;
          stripe_feature_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          created_at?: string;
          id?: string;
          lookup_key?: string | null;
          stripe_customer_id?: string | null;
          stripe_entitlement_id: string;
          stripe_feature_id?: string | null;
        };
        Update: {
          account_id?: string | null;
          created_at?: string;
          id?: string;
          lookup_key?: string | null;
          stripe_customer_id?: string | null;
          stripe_entitlement_id?: string;
          stripe_feature_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "stripe_entitlements_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      subscription_changes: {
        Row: {
          account_id: string | null;
          actor_id: string | null;
          amount_minor: number | null;
          cause: NonNullable<Json>;
          created_at: string;
          currency: string | null;
          effective_at: string;
          from_price_id: string | null;
          from_quantity: number | null;
          from_status: string | null;
          id: string;
          kind: string;
          subscription_id: string;
          to_price_id: string | null;
          to_quantity: number | null;
          to_status: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          actor_id?: string | null;
          amount_minor?: number | null;
          cause?: NonNullable<Json>;
          created_at?: string;
          currency?: string | null;
          effective_at: string;
          from_price_id?: string | null;
          from_quantity?: number | null;
          from_status?: string | null;
          id?: string;
          kind: string;
          subscription_id: string;
          to_price_id?: string | null;
          to_quantity?: number | null;
          to_status?: string | null;
        };
        Update: {
          account_id?: string | null;
          actor_id?: string | null;
          amount_minor?: number | null;
          cause?: NonNullable<Json>;
          created_at?: string;
          currency?: string | null;
          effective_at?: string;
          from_price_id?: string | null;
          from_quantity?: number | null;
          from_status?: string | null;
          id?: string;
          kind?: string;
          subscription_id?: string;
          to_price_id?: string | null;
          to_quantity?: number | null;
          to_status?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "subscription_changes_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "subscription_changes_from_price_id_fkey";
            columns: ["from_price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "subscription_changes_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "subscription_changes_to_price_id_fkey";
            columns: ["to_price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
        ];
      };
      subscription_items: {
        Row: {
          current_period_end: string | null;
          current_period_start: string | null;
          id: string;
          plan_version: number;
          price_id: string | null;
          quantity: number | null;
          stripe_price_id: string | null;
          stripe_product_id: string | null;
          stripe_subscription_item_id: string | null;
          subscription_id: string;
          version_moved_at: string | null;
        };
        ComputedFields: never;
        Insert: {
          current_period_end?: string | null;
          current_period_start?: string | null;
          id?: string;
          plan_version?: number;
          price_id?: string | null;
          quantity?: number | null;
          stripe_price_id?: string | null;
          stripe_product_id?: string | null;
          stripe_subscription_item_id?: string | null;
          subscription_id: string;
          version_moved_at?: string | null;
        };
        Update: {
          current_period_end?: string | null;
          current_period_start?: string | null;
          id?: string;
          plan_version?: number;
          price_id?: string | null;
          quantity?: number | null;
          stripe_price_id?: string | null;
          stripe_product_id?: string | null;
          stripe_subscription_item_id?: string | null;
          subscription_id?: string;
          version_moved_at?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "subscription_items_price_id_fkey";
            columns: ["price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "subscription_items_subscription_id_fkey";
            columns: ["subscription_id"];
            isOneToOne: false;
            referencedRelation: "subscriptions";
            referencedColumns: ["id"];
          },
        ];
      };
      subscription_schedules: {
        Row: {
          account_id: string | null;
          canceled_at: string | null;
          completed_at: string | null;
          created_at: string;
          end_behavior: string | null;
          id: string;
          next_change_at: string | null;
          next_items: Json | null;
          phases: NonNullable<Json>;
          released_at: string | null;
          status: string | null;
          stripe_customer_id: string | null;
          stripe_schedule_id: string;
          stripe_subscription_id: string | null;
          updated_at: string;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          canceled_at?: string | null;
          completed_at?: string | null;
          created_at?: string;
          end_behavior?: string | null;
          id?: string;
          next_change_at?: string | null;
          next_items?: Json | null;
          phases?: NonNullable<Json>;
          released_at?: string | null;
          status?: string | null;
          stripe_customer_id?: string | null;
          stripe_schedule_id: string;
          stripe_subscription_id?: string | null;
          updated_at?: string;
        };
        Update: {
          account_id?: string | null;
          canceled_at?: string | null;
          completed_at?: string | null;
          created_at?: string;
          end_behavior?: string | null;
          id?: string;
          next_change_at?: string | null;
          next_items?: Json | null;
          phases?: NonNullable<Json>;
          released_at?: string | null;
          status?: string | null;
          stripe_customer_id?: string | null;
          stripe_schedule_id?: string;
          stripe_subscription_id?: string | null;
          updated_at?: string;
        };
        Relationships: [
          {
            foreignKeyName: "subscription_schedules_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      subscription_transitions: {
        Row: {
          description: string;
          from_status: string;
          to_status: string;
        };
        ComputedFields: never;
        Insert: {
          description: string;
          from_status: string;
          to_status: string;
        };
        Update: {
          description?: string;
          from_status?: string;
          to_status?: string;
        };
        Relationships: [];
      };
      subscriptions: {
        Row: {
          account_id: string | null;
          billing_anchor: string | null;
          cancel_at: string | null;
          cancel_at_period_end: boolean;
          canceled_at: string | null;
          cancellation_feedback: Json | null;
          cancellation_reason: string | null;
          collection_method: string | null;
          created_at: string;
          credit_minor: number;
          currency: string | null;
          current_period_end: string | null;
          current_period_start: string | null;
          ended_at: string | null;
          id: string;
          manual_kind: string | null;
          metadata: NonNullable<Json>;
          past_due_since: string | null;
          pause_at: string | null;
          pause_collection: Json | null;
          pause_terms: Json | null;
          payment_terms_days: number | null;
          pending_change_at: string | null;
          pending_price_id: string | null;
          pending_quantity: number | null;
          pending_update: Json | null;
          price_id: string | null;
          provider: string;
          quantity: number | null;
          started_at: string | null;
          status: string;
          stripe_customer_id: string | null;
          stripe_default_payment_method_id: string | null;
          stripe_latest_invoice_id: string | null;
          stripe_schedule_id: string | null;
          stripe_subscription_id: string | null;
          trial_end: string | null;
          trial_start: string | null;
          updated_at: string;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          billing_anchor?: string | null;
          cancel_at?: string | null;
          cancel_at_period_end?: boolean;
          canceled_at?: string | null;
          cancellation_feedback?: Json | null;
          cancellation_reason?: string | null;
          collection_method?: string | null;
          created_at?: string;
          credit_minor?: number;
          currency?: string | null;
          current_period_end?: string | null;
          current_period_start?: string | null;
          ended_at?: string | null;
          id?: string;
          manual_kind?: string | null;
          metadata?: NonNullable<Json>;
          past_due_since?: string | null;
          pause_at?: string | null;
          pause_collection?: Json | null;
          pause_terms?: Json | null;
          payment_terms_days?: number | null;
          pending_change_at?: string | null;
          pending_price_id?: string | null;
          pending_quantity?: number | null;
          pending_update?: Json | null;
          price_id?: string | null;
          provider?: string;
          quantity?: number | null;
          started_at?: string | null;
          status: string;
          stripe_customer_id?: string | null;
          stripe_default_payment_method_id?: string | null;
          stripe_latest_invoice_id?: string | null;
          stripe_schedule_id?: string | null;
          stripe_subscription_id?: string | null;
          trial_end?: string | null;
          trial_start?: string | null;
          updated_at?: string;
        };
        Update: {
          account_id?: string | null;
          billing_anchor?: string | null;
          cancel_at?: string | null;
          cancel_at_period_end?: boolean;
          canceled_at?: string | null;
          cancellation_feedback?: Json | null;
          cancellation_reason?: string | null;
          collection_method?: string | null;
          created_at?: string;
          credit_minor?: number;
          currency?: string | null;
          current_period_end?: string | null;
          current_period_start?: string | null;
          ended_at?: string | null;
          id?: string;
          manual_kind?: string | null;
          metadata?: NonNullable<Json>;
          past_due_since?: string | null;
          pause_at?: string | null;
          pause_collection?: Json | null;
          pause_terms?: Json | null;
          payment_terms_days?: number | null;
          pending_change_at?: string | null;
          pending_price_id?: string | null;
          pending_quantity?: number | null;
          pending_update?: Json | null;
          price_id?: string | null;
          provider?: string;
          quantity?: number | null;
          started_at?: string | null;
          status?: string;
          stripe_customer_id?: string | null;
          stripe_default_payment_method_id?: string | null;
          stripe_latest_invoice_id?: string | null;
          stripe_schedule_id?: string | null;
          stripe_subscription_id?: string | null;
          trial_end?: string | null;
          trial_start?: string | null;
          updated_at?: string;
        };
        Relationships: [
          {
            foreignKeyName: "subscriptions_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "subscriptions_pending_price_id_fkey";
            columns: ["pending_price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "subscriptions_price_id_fkey";
            columns: ["price_id"];
            isOneToOne: false;
            referencedRelation: "prices";
            referencedColumns: ["id"];
          },
        ];
      };
      tax_ids: {
        Row: {
          account_id: string | null;
          country: string | null;
          created_at: string;
          deleted_at: string | null;
          id: string;
          stripe_customer_id: string | null;
          stripe_tax_id: string;
          type: string | null;
          value: string | null;
          verification_status: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id?: string | null;
          country?: string | null;
          created_at?: string;
          deleted_at?: string | null;
          id?: string;
          stripe_customer_id?: string | null;
          stripe_tax_id: string;
          type?: string | null;
          value?: string | null;
          verification_status?: string | null;
        };
        Update: {
          account_id?: string | null;
          country?: string | null;
          created_at?: string;
          deleted_at?: string | null;
          id?: string;
          stripe_customer_id?: string | null;
          stripe_tax_id?: string;
          type?: string | null;
          value?: string | null;
          verification_status?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "tax_ids_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
        ];
      };
      usage_adjustments: {
        Row: {
          account_id: string;
          created_at: string;
          feature_key: string;
          id: string;
          idempotency_key: string;
          kind: string;
          period_start: string;
          quantity: number;
          reason: string | null;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          created_at?: string;
          feature_key: string;
          id?: string;
          idempotency_key: string;
          kind: string;
          period_start: string;
          quantity: number;
          reason?: string | null;
        };
        Update: {
          account_id?: string;
          created_at?: string;
          feature_key?: string;
          id?: string;
          idempotency_key?: string;
          kind?: string;
          period_start?: string;
          quantity?: number;
          reason?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "usage_adjustments_account_id_feature_key_period_start_fkey";
            columns: ["account_id", "feature_key", "period_start"];
            isOneToOne: false;
            referencedRelation: "usage_totals";
            referencedColumns: ["account_id", "feature_key", "period_start"];
          },
        ];
      };
      usage_alerts: {
        Row: {
          account_id: string;
          allowance: number;
          created_at: string;
          feature_key: string;
          percent: number;
          period_start: string;
          used: number;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          allowance: number;
          created_at?: string;
          feature_key: string;
          percent: number;
          period_start: string;
          used: number;
        };
        Update: {
          account_id?: string;
          allowance?: number;
          created_at?: string;
          feature_key?: string;
          percent?: number;
          period_start?: string;
          used?: number;
        };
        Relationships: [
          {
            foreignKeyName: "usage_alerts_account_id_feature_key_period_start_fkey";
            columns: ["account_id", "feature_key", "period_start"];
            isOneToOne: false;
            referencedRelation: "usage_totals";
            referencedColumns: ["account_id", "feature_key", "period_start"];
          },
        ];
      };
      usage_burns: {
        Row: {
          account_id: string;
          feature_key: string;
          grant_id: string;
          period_start: string;
          quantity: number;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          feature_key: string;
          grant_id: string;
          period_start: string;
          quantity: number;
        };
        Update: {
          account_id?: string;
          feature_key?: string;
          grant_id?: string;
          period_start?: string;
          quantity?: number;
        };
        Relationships: [
          {
            foreignKeyName: "usage_burns_account_id_feature_key_period_start_fkey";
            columns: ["account_id", "feature_key", "period_start"];
            isOneToOne: false;
            referencedRelation: "usage_totals";
            referencedColumns: ["account_id", "feature_key", "period_start"];
          },
          {
            foreignKeyName: "usage_burns_grant_id_fkey";
            columns: ["grant_id"];
            isOneToOne: false;
            referencedRelation: "usage_grants";
            referencedColumns: ["id"];
          },
        ];
      };
      usage_grants: {
        Row: {
          account_id: string;
          burnt: number;
          created_at: string;
          feature_key: string;
          granted_by: string | null;
          id: string;
          priority: number;
          quantity: number;
          reason: string;
          reference: string | null;
          revoked_at: string | null;
          revoked_reason: string | null;
          valid_from: string;
          valid_until: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          burnt?: number;
          created_at?: string;
          feature_key: string;
          granted_by?: string | null;
          id?: string;
          priority?: number;
          quantity: number;
          reason: string;
          reference?: string | null;
          revoked_at?: string | null;
          revoked_reason?: string | null;
          valid_from: string;
          valid_until?: string;
        };
        Update: {
          account_id?: string;
          burnt?: number;
          created_at?: string;
          feature_key?: string;
          granted_by?: string | null;
          id?: string;
          priority?: number;
          quantity?: number;
          reason?: string;
          reference?: string | null;
          revoked_at?: string | null;
          revoked_reason?: string | null;
          valid_from?: string;
          valid_until?: string;
        };
        Relationships: [
          {
            foreignKeyName: "usage_grants_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "usage_grants_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
        ];
      };
      usage_records: {
        Row: {
          account_id: string;
          allowance: number | null;
          corrects_key: string | null;
          feature_key: string;
          id: string;
          idempotency_key: string;
          occurred_at: string;
          period_start: string;
          properties: Json | null;
          quantity: number;
          recorded_at: string;
          recorded_month: string;
          unique_value: string | null;
          used_after: number | null;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          allowance?: number | null;
          corrects_key?: string | null;
          feature_key: string;
          id?: string;
          idempotency_key: string;
          occurred_at: string;
          period_start: string;
          properties?: Json | null;
          quantity: number;
          recorded_at: string;
          recorded_month: string;
          unique_value?: string | null;
          used_after?: number | null;
        };
        Update: {
          account_id?: string;
          allowance?: number | null;
          corrects_key?: string | null;
          feature_key?: string;
          id?: string;
          idempotency_key?: string;
          occurred_at?: string;
          period_start?: string;
          properties?: Json | null;
          quantity?: number;
          recorded_at?: string;
          recorded_month?: string;
          unique_value?: string | null;
          used_after?: number | null;
        };
        Relationships: [];
      };
      usage_reservations: {
        Row: {
          account_id: string;
          created_at: string;
          expires_at: string;
          feature_key: string;
          finished_at: string | null;
          id: string;
          idempotency_key: string | null;
          period_start: string;
          quantity: number;
          settled_quantity: number | null;
          status: string;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          created_at?: string;
          expires_at: string;
          feature_key: string;
          finished_at?: string | null;
          id?: string;
          idempotency_key?: string | null;
          period_start: string;
          quantity: number;
          settled_quantity?: number | null;
          status?: string;
        };
        Update: {
          account_id?: string;
          created_at?: string;
          expires_at?: string;
          feature_key?: string;
          finished_at?: string | null;
          id?: string;
          idempotency_key?: string | null;
          period_start?: string;
          quantity?: number;
          settled_quantity?: number | null;
          status?: string;
        };
        Relationships: [
          {
            foreignKeyName: "usage_reservations_account_id_feature_key_period_start_fkey";
            columns: ["account_id", "feature_key", "period_start"];
            isOneToOne: false;
            referencedRelation: "usage_totals";
            referencedColumns: ["account_id", "feature_key", "period_start"];
          },
        ];
      };
      usage_totals: {
        Row: {
          account_id: string;
          alerted_percent: number;
          closed_at: string | null;
          feature_key: string;
          included: number | null;
          latest_at: string | null;
          period_end: string;
          period_start: string;
          prepaid: number;
          reserved: number;
          rollover: number;
          used: number;
        };
        ComputedFields: never;
        Insert: {
          account_id: string;
          alerted_percent?: number;
          closed_at?: string | null;
          feature_key: string;
          included?: number | null;
          latest_at?: string | null;
          period_end: string;
          period_start: string;
          prepaid?: number;
          reserved?: number;
          rollover?: number;
          used?: number;
        };
        Update: {
          account_id?: string;
          alerted_percent?: number;
          closed_at?: string | null;
          feature_key?: string;
          included?: number | null;
          latest_at?: string | null;
          period_end?: string;
          period_start?: string;
          prepaid?: number;
          reserved?: number;
          rollover?: number;
          used?: number;
        };
        Relationships: [
          {
            foreignKeyName: "usage_totals_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "usage_totals_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
        ];
      };
    };
    Views: {
      caller: {
        Row: {
          user_id: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      clock: {
        Row: {
          at: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      current_access: {
        Row: {
          access_level: string | null;
          account_id: string;
          feature_key: string;
        };
        ComputedFields: never;
        Relationships: [
          {
            foreignKeyName: "entitlements_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "entitlements_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
        ];
      };
      current_entitlements: {
        Row: {
          account_id: string;
          feature_key: string;
          limit_value: number | null;
          valid_from: string | null;
          valid_until: string | null;
        };
        ComputedFields: never;
        Relationships: [
          {
            foreignKeyName: "entitlements_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "entitlements_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
        ];
      };
      current_sources: {
        Row: {
          access_level: string;
          account_id: string;
          feature_key: string;
          limit_value: number | null;
          plan_id: string | null;
          source_id: string;
          source_kind: string;
          store_key: string | null;
          valid_from: string;
          valid_until: string;
        };
        ComputedFields: never;
        Relationships: [
          {
            foreignKeyName: "entitlements_account_id_fkey";
            columns: ["account_id"];
            isOneToOne: false;
            referencedRelation: "accounts";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "entitlements_feature_key_fkey";
            columns: ["feature_key"];
            isOneToOne: false;
            referencedRelation: "features";
            referencedColumns: ["key"];
          },
          {
            foreignKeyName: "entitlements_plan_id_fkey";
            columns: ["plan_id"];
            isOneToOne: false;
            referencedRelation: "plans";
            referencedColumns: ["id"];
          },
        ];
      };
      payment_history: {
        Row: {
          account_id: string | null;
          amount_minor: number | null;
          card_brand: string | null;
          card_last4: string | null;
          currency: string | null;
          document_url: string | null;
          invoice_number: string | null;
          kind: string | null;
          method: string | null;
          occurred_at: string | null;
          reason: string | null;
          reference: string | null;
          status: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      plan_offers: {
        Row: {
          billing_interval: string | null;
          currency: string;
          description: string | null;
          features: Json | null;
          interval_count: number;
          kind: string;
          package_rounding: string | null;
          package_size: number | null;
          plan_key: string;
          plan_name: string;
          price_key: string | null;
          store_key: string | null;
          store_name: string | null;
          tier: string | null;
          tier_rank: number;
          tiers: Json | null;
          tiers_mode: string | null;
          trial_days: number | null;
          unit_amount_decimal: number | null;
          unit_amount_minor: number | null;
          usage_type: string;
        };
        ComputedFields: never;
        Relationships: [];
      };
    };
    Functions: {
      accept_invitation: {
        Args: { token: string };
        Returns: {
          account_id: string;
          created_at: string;
          role: string;
          updated_at: string;
          user_id: string;
        };
        SetofOptions: {
          from: "*";
          to: "memberships";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      access_level: { Args: { account_id?: string; feature: string }; Returns: string };
      add_claims: { Args: { claims: Json; user_id: string }; Returns: Json };
      cancel_subscription: {
        Args: { account_id?: string; at_period_end?: boolean; reason?: string };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      change_plan: {
        Args: {
          account_id?: string;
          at_period_end?: boolean;
          price_key: string;
          proration_date?: string;
          quantity?: number;
        };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      change_role: {
        Args: { account_id: string; role: string; user_id: string };
        Returns: {
          account_id: string;
          created_at: string;
          role: string;
          updated_at: string;
          user_id: string;
        };
        SetofOptions: {
          from: "*";
          to: "memberships";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      check_code: {
        Args: { account_id?: string; discount_code: string; price_key: string; quantity?: number };
        Returns: Database["billing"]["CompositeTypes"]["discount_quote"];
        SetofOptions: {
          from: "*";
          to: "discount_quote";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      check_eligibility: {
        Args: { account_id?: string; price_key: string };
        Returns: Database["billing"]["CompositeTypes"]["eligibility"];
        SetofOptions: {
          from: "*";
          to: "eligibility";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      claim_commands: {
        Args: { batch?: number; subject_id?: string };
        Returns: Database["billing"]["CompositeTypes"]["claimed_command"][];
        SetofOptions: {
          from: "*";
          to: "claimed_command";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      close_account: {
        Args: { account_id?: string };
        Returns: {
          closed_at: string | null;
          created_at: string;
          id: string;
          is_auth_user: boolean;
          kind: string;
          name: string | null;
        };
        SetofOptions: {
          from: "*";
          to: "accounts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      complete_command: {
        Args: {
          command_id: string;
          elapsed_seconds?: number;
          http_status: number;
          is_replay?: boolean;
          lease: string;
          response: Json;
          retry_after_seconds?: number;
          stripe_date?: string;
        };
        Returns: Database["billing"]["CompositeTypes"]["command_outcome"];
        SetofOptions: {
          from: "*";
          to: "command_outcome";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      consume: {
        Args: {
          account_id?: string;
          feature: string;
          idempotency_key?: string;
          properties?: Json;
          quantity?: number;
        };
        Returns: Database["billing"]["CompositeTypes"]["usage_decision"];
        SetofOptions: {
          from: "*";
          to: "usage_decision";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      create_organization: {
        Args: { name: string };
        Returns: {
          closed_at: string | null;
          created_at: string;
          id: string;
          is_auth_user: boolean;
          kind: string;
          name: string | null;
        };
        SetofOptions: {
          from: "*";
          to: "accounts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      entitlement_limit: {
        Args: { account_id?: string; feature: string; store?: string };
        Returns: number;
      };
      explain_entitlement: {
        Args: { account_id?: string; at?: string; feature: string };
        Returns: Database["billing"]["CompositeTypes"]["entitlement_explanation"][];
        SetofOptions: {
          from: "*";
          to: "entitlement_explanation";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      find_discount: {
        Args: { account_id?: string; discount_code: string };
        Returns: Database["billing"]["CompositeTypes"]["stripe_request"];
        SetofOptions: {
          from: "*";
          to: "stripe_request";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      has_entitlement: {
        Args: { account_id?: string; feature: string; store?: string };
        Returns: boolean;
      };
      has_entitlement_at: {
        Args: { account_id?: string; at: string; feature: string };
        Returns: boolean;
      };
      ingest_stripe_event: {
        Args: { payload: string };
        Returns: Database["billing"]["CompositeTypes"]["ingest_result"];
        SetofOptions: {
          from: "*";
          to: "ingest_result";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      ingest_stripe_events: {
        Args: { payloads: string[] };
        Returns: Database["billing"]["CompositeTypes"]["ingest_result"][];
        SetofOptions: {
          from: "*";
          to: "ingest_result";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      invite_member: {
        Args: { account_id: string; email: string; expires_in?: string; role?: string };
        Returns: Database["billing"]["CompositeTypes"]["new_invitation"];
        SetofOptions: {
          from: "*";
          to: "new_invitation";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      leave_organization: {
        Args: { account_id: string };
        Returns: {
          account_id: string;
          created_at: string;
          role: string;
          updated_at: string;
          user_id: string;
        };
        SetofOptions: {
          from: "*";
          to: "memberships";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      list_plans: {
        Args: { currency?: string; store?: string };
        Returns: {
          billing_interval: string | null;
          currency: string;
          description: string | null;
          features: Json | null;
          interval_count: number;
          kind: string;
          package_rounding: string | null;
          package_size: number | null;
          plan_key: string;
          plan_name: string;
          price_key: string | null;
          store_key: string | null;
          store_name: string | null;
          tier: string | null;
          tier_rank: number;
          tiers: Json | null;
          tiers_mode: string | null;
          trial_days: number | null;
          unit_amount_decimal: number | null;
          unit_amount_minor: number | null;
          usage_type: string;
        }[];
        SetofOptions: {
          from: "*";
          to: "plan_offers";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      membership_tier: { Args: { account_id?: string; store?: string }; Returns: string };
      my_access: {
        Args: { account_id?: string };
        Returns: Database["billing"]["CompositeTypes"]["access_summary"][];
        SetofOptions: {
          from: "*";
          to: "access_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      my_entitlements: {
        Args: { account_id?: string };
        Returns: {
          account_id: string;
          feature_key: string;
          limit_value: number | null;
          valid_from: string | null;
          valid_until: string | null;
        }[];
        SetofOptions: {
          from: "*";
          to: "current_entitlements";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      my_subscription: {
        Args: { account_id?: string };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      pause_subscription: {
        Args: {
          account_id?: string;
          at_period_end?: boolean;
          behavior?: string;
          resumes_at?: string;
        };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      prepare_checkout: {
        Args: {
          account_id?: string;
          cancel_url: string;
          discount_code?: string;
          price_key: string;
          quantity?: number;
          success_url: string;
        };
        Returns: {
          account_id: string;
          cancel_url: string;
          completed_at: string | null;
          created_at: string;
          discount_code_id: string | null;
          expires_at: string | null;
          failure: Json | null;
          id: string;
          price_id: string;
          quantity: number;
          status: string;
          stripe_promotion_code_id: string | null;
          stripe_session_id: string | null;
          stripe_subscription_id: string | null;
          success_url: string;
          trial_days: number;
          url: string | null;
        };
        SetofOptions: {
          from: "*";
          to: "checkout_sessions";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      prepare_payment_method: {
        Args: { account_id?: string; cancel_url: string; success_url: string };
        Returns: Database["billing"]["CompositeTypes"]["stripe_request"];
        SetofOptions: {
          from: "*";
          to: "stripe_request";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      prepare_portal: {
        Args: { account_id?: string; flow?: string; return_url: string };
        Returns: Database["billing"]["CompositeTypes"]["stripe_request"];
        SetofOptions: {
          from: "*";
          to: "stripe_request";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      preview_change: {
        Args: {
          account_id?: string;
          at_period_end?: boolean;
          price_key: string;
          quantity?: number;
        };
        Returns: Database["billing"]["CompositeTypes"]["change_preview"];
        SetofOptions: {
          from: "*";
          to: "change_preview";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      price_amount: {
        Args: { price_key: string; quantity?: number };
        Returns: Database["billing"]["CompositeTypes"]["price_quote"];
        SetofOptions: {
          from: "*";
          to: "price_quote";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      record_usage: {
        Args: {
          account_id?: string;
          at?: string;
          feature: string;
          idempotency_key?: string;
          properties?: Json;
          quantity?: number;
          unique_value?: string;
        };
        Returns: Database["billing"]["CompositeTypes"]["recorded_usage"];
        SetofOptions: {
          from: "*";
          to: "recorded_usage";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      record_usage_batch: {
        Args: { records: Json };
        Returns: Database["billing"]["CompositeTypes"]["recorded_usage"][];
        SetofOptions: {
          from: "*";
          to: "recorded_usage";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      release: {
        Args: { account_id?: string; reservation_id: string };
        Returns: {
          account_id: string;
          created_at: string;
          expires_at: string;
          feature_key: string;
          finished_at: string | null;
          id: string;
          idempotency_key: string | null;
          period_start: string;
          quantity: number;
          settled_quantity: number | null;
          status: string;
        };
        SetofOptions: {
          from: "*";
          to: "usage_reservations";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      remove_member: {
        Args: { account_id: string; user_id: string };
        Returns: {
          account_id: string;
          created_at: string;
          role: string;
          updated_at: string;
          user_id: string;
        };
        SetofOptions: {
          from: "*";
          to: "memberships";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      rename_organization: {
        Args: { account_id: string; name: string };
        Returns: {
          closed_at: string | null;
          created_at: string;
          id: string;
          is_auth_user: boolean;
          kind: string;
          name: string | null;
        };
        SetofOptions: {
          from: "*";
          to: "accounts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      report_rejected_webhook: { Args: { reason: string }; Returns: undefined };
      reserve: {
        Args: {
          account_id?: string;
          expires_in?: string;
          feature: string;
          idempotency_key?: string;
          quantity?: number;
        };
        Returns: {
          account_id: string;
          created_at: string;
          expires_at: string;
          feature_key: string;
          finished_at: string | null;
          id: string;
          idempotency_key: string | null;
          period_start: string;
          quantity: number;
          settled_quantity: number | null;
          status: string;
        };
        SetofOptions: {
          from: "*";
          to: "usage_reservations";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      resume_subscription: {
        Args: { account_id?: string };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      revoke_invitation: {
        Args: { account_id: string; invitation_id: string };
        Returns: {
          accepted_at: string | null;
          accepted_by: string | null;
          account_id: string;
          created_at: string;
          email: string;
          expires_at: string;
          id: string;
          invited_by: string | null;
          revoked_at: string | null;
          role: string;
        };
        SetofOptions: {
          from: "*";
          to: "invitations";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      settle: {
        Args: { account_id?: string; quantity?: number; reservation_id: string };
        Returns: {
          account_id: string;
          created_at: string;
          expires_at: string;
          feature_key: string;
          finished_at: string | null;
          id: string;
          idempotency_key: string | null;
          period_start: string;
          quantity: number;
          settled_quantity: number | null;
          status: string;
        };
        SetofOptions: {
          from: "*";
          to: "usage_reservations";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      transfer_ownership: {
        Args: { account_id: string; user_id: string };
        Returns: {
          account_id: string;
          created_at: string;
          role: string;
          updated_at: string;
          user_id: string;
        };
        SetofOptions: {
          from: "*";
          to: "memberships";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      undo_cancel: {
        Args: { account_id?: string };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      usage_summary: {
        Args: { account_id?: string };
        Returns: Database["billing"]["CompositeTypes"]["usage_state"][];
        SetofOptions: {
          from: "*";
          to: "usage_state";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
    };
    Enums: {
      [_ in never]: never;
    };
    CompositeTypes: {
      access_summary: {
        account_id: string | null;
        membership_tier: string | null;
        tier_rank: number | null;
        access_until: string | null;
        features: Json | null;
        version: number | null;
      };
      change_preview: {
        subject_id: string | null;
        provider: string | null;
        price_key: string | null;
        quantity: number | null;
        at_period_end: boolean | null;
        effective_at: string | null;
        proration_date: string | null;
        currency: string | null;
        lines: Database["billing"]["CompositeTypes"]["preview_line"][] | null;
        total_minor: number | null;
        due_now_minor: number | null;
        credit_minor: number | null;
      };
      claimed_command: {
        id: string | null;
        lease: string | null;
        idempotency_key: string | null;
        method: string | null;
        path: string | null;
        params: Json | null;
      };
      command_outcome: {
        status: string | null;
        retry_at: string | null;
      };
      discount_quote: {
        is_valid: boolean | null;
        reason: string | null;
        percent_off: number | null;
        amount_off_minor: number | null;
        periods: number | null;
        currency: string | null;
        amount_minor: number | null;
        discount_minor: number | null;
        total_minor: number | null;
      };
      eligibility: {
        eligible: boolean | null;
        reasons: string[] | null;
        notes: string[] | null;
        details: Json | null;
        trial_days: number | null;
      };
      entitlement_explanation: {
        gives_access: boolean | null;
        reason: string | null;
        source_kind: string | null;
        source_id: string | null;
        access_level: string | null;
        plan_key: string | null;
        subscription_status: string | null;
        limit_value: number | null;
        valid_from: string | null;
        valid_until: string | null;
        decides_limit: boolean | null;
        decides_end: boolean | null;
      };
      ingest_result: {
        event_id: string | null;
        status: string | null;
        duplicate: boolean | null;
      };
      new_invitation: {
        id: string | null;
        account_id: string | null;
        email: string | null;
        role: string | null;
        token: string | null;
        expires_at: string | null;
      };
      preview_line: {
        description: string | null;
        amount_minor: number | null;
        quantity: number | null;
        period_start: string | null;
        period_end: string | null;
        is_proration: boolean | null;
      };
      price_quote: {
        price_key: string | null;
        quantity: number | null;
        amount_minor: number | null;
        currency: string | null;
        billing_interval: string | null;
        interval_count: number | null;
      };
      rebuilt_object: {
        object_type: string | null;
        object_id: string | null;
        class: string | null;
        differences: Json | null;
        problem: string | null;
        is_repaired: boolean | null;
      };
      recorded_usage: {
        account_id: string | null;
        feature_key: string | null;
        idempotency_key: string | null;
        quantity: number | null;
        period_start: string | null;
        is_repeated: boolean | null;
      };
      stripe_request: {
        subject_id: string | null;
      };
      subscription_summary: {
        id: string | null;
        account_id: string | null;
        provider: string | null;
        status: string | null;
        plan_key: string | null;
        plan_name: string | null;
        tier: string | null;
        price_key: string | null;
        quantity: number | null;
        unit_amount_minor: number | null;
        currency: string | null;
        billing_interval: string | null;
        interval_count: number | null;
        current_period_start: string | null;
        current_period_end: string | null;
        trial_end: string | null;
        past_due_since: string | null;
        ends_at: string | null;
        access_until: string | null;
        pending_price_key: string | null;
        pending_quantity: number | null;
        pending_change_at: string | null;
        pause_at: string | null;
        is_paused: boolean | null;
        resumes_at: string | null;
        pending_command: string | null;
        refusal: Json | null;
        open_invoice_url: string | null;
      };
      usage_decision: {
        is_allowed: boolean | null;
        feature_key: string | null;
        quantity: number | null;
        used: number | null;
        reserved: number | null;
        allowance: number | null;
        remaining: number | null;
        overage: number | null;
        period_start: string | null;
        period_end: string | null;
        reason: string | null;
        is_repeated: boolean | null;
      };
      usage_state: {
        feature_key: string | null;
        kind: string | null;
        period_start: string | null;
        period_end: string | null;
        used: number | null;
        reserved: number | null;
        included: number | null;
        rollover: number | null;
        prepaid_used: number | null;
        prepaid_left: number | null;
        remaining: number | null;
        overage: number | null;
        is_soft: boolean | null;
      };
    };
  };
  billing_admin: {
    Tables: {
      [_ in never]: never;
    };
    Views: {
      alerts: {
        Row: {
          details: Json | null;
          fingerprint: string | null;
          first_seen_at: string | null;
          id: string | null;
          incident_id: string | null;
          last_seen_at: string | null;
          resolved_at: string | null;
          resolved_reason: string | null;
          rule_key: string | null;
          severity: string | null;
          sightings: number | null;
          status: string | null;
          title: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      audit_log: {
        Row: {
          account_id: string | null;
          actor_id: string | null;
          actor_role: string | null;
          after: Json | null;
          before: Json | null;
          cause: Json | null;
          id: number | null;
          occurred_at: string | null;
          operation: string | null;
          request_id: string | null;
          row_key: string | null;
          table_name: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      command_backlog: {
        Row: {
          account_id: string | null;
          attempts: number | null;
          command_id: string | null;
          created_at: string | null;
          error: string | null;
          kind: string | null;
          lease_expires_at: string | null;
          next_attempt_at: string | null;
          status: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      contracts: {
        Row: {
          account_id: string | null;
          account_name: string | null;
          charged_minor: number | null;
          commitment_left_minor: number | null;
          commitment_minor: number | null;
          contract_id: string | null;
          currency: string | null;
          ends_at: string | null;
          features: Json | null;
          in_force_until: string | null;
          is_in_force: boolean | null;
          minimum_minor: number | null;
          notice_until: string | null;
          payment_terms_days: number | null;
          price_key: string | null;
          quantity: number | null;
          reason: string | null;
          reference: string | null;
          starts_at: string | null;
          status: string | null;
          subscription_id: string | null;
          supersedes: string | null;
          term_starts_at: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      critical_issues: {
        Row: {
          account_id: string | null;
          details: Json | null;
          issue: string | null;
          severity: string | null;
          since: string | null;
          subject: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      discount_codes: {
        Row: {
          amount_off_minor: number | null;
          code: string | null;
          confirmed: number | null;
          created_at: string | null;
          currency: string | null;
          deactivated_at: string | null;
          expires_at: string | null;
          first_time_only: boolean | null;
          id: string | null;
          max_per_account: number | null;
          max_redemptions: number | null;
          minimum_amount_minor: number | null;
          percent_off: number | null;
          periods: number | null;
          plan_keys: string[] | null;
          price_keys: string[] | null;
          reserved: number | null;
          store_keys: string[] | null;
          stripe_coupon_ids: string[] | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      drifts: {
        Row: {
          class: string | null;
          differences: Json | null;
          event_id: string | null;
          found_at: string | null;
          found_by: string | null;
          last_seen_at: string | null;
          object_id: string | null;
          object_type: string | null;
          repaired_at: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      entitlement_drift: {
        Row: {
          account_id: string | null;
          computed: Json | null;
          feature_key: string | null;
          problem: string | null;
          source_id: string | null;
          source_kind: string | null;
          stored: Json | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      event_backlog: {
        Row: {
          attempts: number | null;
          error: string | null;
          event_id: string | null;
          next_attempt_at: string | null;
          object_id: string | null;
          occurred_at: string | null;
          received_at: string | null;
          status: string | null;
          status_reason: string | null;
          stripe_customer_id: string | null;
          type: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      expiring_soon: {
        Row: {
          access_until: string | null;
          account_id: string | null;
          currency: string | null;
          current_period_end: string | null;
          ends_at: string | null;
          expires_at: string | null;
          past_due_since: string | null;
          plan_key: string | null;
          price_key: string | null;
          provider: string | null;
          quantity: number | null;
          status: string | null;
          store_key: string | null;
          stripe_customer_id: string | null;
          stripe_subscription_id: string | null;
          subscription_id: string | null;
          tier: string | null;
          unit_amount_minor: number | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      incident_timeline: {
        Row: {
          actor_id: string | null;
          id: number | null;
          incident_id: string | null;
          kind: string | null;
          note: string | null;
          occurred_at: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      incidents: {
        Row: {
          assigned_to: string | null;
          id: string | null;
          opened_at: string | null;
          resolution: string | null;
          resolved_at: string | null;
          rule_key: string | null;
          severity: string | null;
          status: string | null;
          title: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      metered_tables: {
        Row: {
          feature_key: string | null;
          is_broken: boolean | null;
          owner_column: string | null;
          table_name: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      money_invariants: {
        Row: {
          account_id: string | null;
          expected: number | null;
          found: number | null;
          found_at: string | null;
          object_id: string | null;
          rule: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      overdue_invoices: {
        Row: {
          account_id: string | null;
          amount_remaining_minor: number | null;
          blocked_by: string | null;
          case_id: string | null;
          currency: string | null;
          hosted_invoice_url: string | null;
          invoice_number: string | null;
          last_decline: string | null;
          next_retry_at: string | null;
          next_stage_at: string | null;
          opened_at: string | null;
          policy_key: string | null;
          retries: number | null;
          stage: string | null;
          status: string | null;
          stripe_invoice_id: string | null;
          subscription_id: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      plan_migrations: {
        Row: {
          asked: number | null;
          created_at: string | null;
          from_plan: string | null;
          migration_id: string | null;
          moved: number | null;
          pending: number | null;
          problems: Json | null;
          proration: string | null;
          reason: string | null;
          skipped: number | null;
          steps: number | null;
          to_plan: string | null;
          to_version: number | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      problem_accounts: {
        Row: {
          account_id: string | null;
          amount_minor: number | null;
          currency: string | null;
          problem: string | null;
          since: string | null;
          subscription_id: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      seat_drift: {
        Row: {
          account_id: string | null;
          asked: number | null;
          blocked_by: string | null;
          plan_key: string | null;
          running: number | null;
          seat_policy: string | null;
          subscription_id: string | null;
          wanted: number | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      store_revenue: {
        Row: {
          currency: string | null;
          disputes_minor: number | null;
          month: string | null;
          net_minor: number | null;
          payments_minor: number | null;
          platform_share_minor: number | null;
          refunds_minor: number | null;
          store_key: string | null;
          store_share_minor: number | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      stores: {
        Row: {
          admins: string[] | null;
          is_active: boolean | null;
          plans_on_sale: number | null;
          running_subscriptions: number | null;
          share_basis_points: number | null;
          store_key: string | null;
          store_name: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      subscription_overview: {
        Row: {
          access_until: string | null;
          account_id: string | null;
          currency: string | null;
          current_period_end: string | null;
          ends_at: string | null;
          past_due_since: string | null;
          plan_key: string | null;
          price_key: string | null;
          provider: string | null;
          quantity: number | null;
          status: string | null;
          store_key: string | null;
          stripe_customer_id: string | null;
          stripe_subscription_id: string | null;
          subscription_id: string | null;
          tier: string | null;
          unit_amount_minor: number | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      sweeps: {
        Row: {
          asked_at: string | null;
          changed: number | null;
          created_from: string | null;
          drifted: number | null;
          failures: number | null;
          finished_at: string | null;
          is_backfill: boolean | null;
          last_error: Json | null;
          list_key: string | null;
          members: number | null;
          pages: number | null;
          requested_at: string | null;
          started_at: string | null;
          status: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      system_health: {
        Row: {
          check_key: string | null;
          since: string | null;
          status: string | null;
          summary: string | null;
          value: number | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      task_runs: {
        Row: {
          duration: string | null;
          error: Json | null;
          id: number | null;
          outcome: string | null;
          rows_affected: number | null;
          started_at: string | null;
          task_key: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      tasks: {
        Row: {
          consecutive_failures: number | null;
          description: string | null;
          is_enabled: boolean | null;
          key: string | null;
          last_run_at: string | null;
          next_run_at: string | null;
          run_every: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
      unbound_customers: {
        Row: {
          email: string | null;
          invoices: number | null;
          live_subscriptions: number | null;
          name: string | null;
          paid_payments: number | null;
          since: string | null;
          stripe_customer_id: string | null;
        };
        ComputedFields: never;
        Relationships: [];
      };
    };
    Functions: {
      activate_contract: {
        Args: { contract_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["contracts"]["Row"];
        SetofOptions: {
          from: "*";
          to: "contracts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      add_administrator: { Args: { reason: string; user_id: string }; Returns: undefined };
      add_store_admin: {
        Args: { reason: string; store: string; user_id: string };
        Returns: undefined;
      };
      amend_contract: {
        Args: {
          commitment_minor?: number;
          contract_id: string;
          ends_at?: string;
          features?: Json;
          minimum_minor?: number;
          payment_terms_days?: number;
          price_key?: string;
          prices?: Json;
          quantity?: number;
          reason: string;
          reference: string;
        };
        Returns: Database["billing"]["Tables"]["contracts"]["Row"];
        SetofOptions: {
          from: "*";
          to: "contracts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      apply_discount_code: {
        Args: { discount_code: string; reason: string; subscription_id: string };
        Returns: Database["billing"]["Tables"]["discount_redemptions"]["Row"][];
        SetofOptions: {
          from: "*";
          to: "discount_redemptions";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      appoint_owner: {
        Args: { account_id: string; reason: string; user_id: string };
        Returns: Database["billing"]["Tables"]["memberships"]["Row"];
        SetofOptions: {
          from: "*";
          to: "memberships";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      archive_plan: {
        Args: { plan_key: string; reason: string };
        Returns: Database["billing"]["Tables"]["plans"]["Row"];
        SetofOptions: {
          from: "*";
          to: "plans";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      archive_price: {
        Args: { price_key: string; reason: string };
        Returns: Database["billing"]["Tables"]["prices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "prices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      assign_incident: {
        Args: { assigned_to: string; incident_id: string; reason: string };
        Returns: undefined;
      };
      audit_of_account: {
        Args: { account_id: string };
        Returns: {
          account_id: string | null;
          actor_id: string | null;
          actor_role: string | null;
          after: Json | null;
          before: Json | null;
          cause: Json | null;
          id: number | null;
          occurred_at: string | null;
          operation: string | null;
          request_id: string | null;
          row_key: string | null;
          table_name: string | null;
        }[];
        SetofOptions: {
          from: "*";
          to: "audit_log";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      bind_customer: {
        Args: { account_id: string; reason: string; stripe_customer_id: string };
        Returns: Database["billing"]["Tables"]["customers"]["Row"];
        SetofOptions: {
          from: "*";
          to: "customers";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      change_price: {
        Args: { price_key: string; reason: string; unit_amount_minor: number };
        Returns: Database["billing"]["Tables"]["prices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "prices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      close_account: {
        Args: { account_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["accounts"]["Row"];
        SetofOptions: {
          from: "*";
          to: "accounts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      configure_doorbell: {
        Args: { functions_url: string; reason: string; vault_secret_name: string };
        Returns: string;
      };
      correct_all_entitlements: {
        Args: { after_account?: string; at_most?: number; reason: string };
        Returns: Database["billing_admin"]["CompositeTypes"]["correction_batch"];
        SetofOptions: {
          from: "*";
          to: "correction_batch";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      correct_entitlements: { Args: { account_id?: string; reason: string }; Returns: number };
      correct_usage: {
        Args: { account_id: string; idempotency_key: string; quantity: number; reason: string };
        Returns: Database["billing"]["CompositeTypes"]["recorded_usage"];
        SetofOptions: {
          from: "*";
          to: "recorded_usage";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      create_contract: {
        Args: {
          account_id: string;
          commitment_minor?: number;
          ends_at: string;
          features?: Json;
          minimum_minor?: number;
          notice_days?: number;
          payment_terms_days?: number;
          price_key?: string;
          prices?: Json;
          quantity?: number;
          reason: string;
          reference: string;
          starts_at?: string;
          term_months?: number;
        };
        Returns: Database["billing"]["Tables"]["contracts"]["Row"];
        SetofOptions: {
          from: "*";
          to: "contracts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      create_coupon: {
        Args: {
          amount_off_minor?: number;
          coupon_key: string;
          currency?: string;
          duration_in_months?: number;
          percent_off?: number;
          reason: string;
        };
        Returns: string;
      };
      create_discount_code: {
        Args: {
          amount_off_minor?: number;
          currency?: string;
          discount_code: string;
          expires_at?: string;
          first_time_only?: boolean;
          max_per_account?: number;
          max_redemptions?: number;
          minimum_amount_minor?: number;
          percent_off?: number;
          periods?: number;
          plan_keys?: string[];
          price_keys?: string[];
          reason: string;
          store_keys?: string[];
        };
        Returns: Database["billing_admin"]["CompositeTypes"]["discount_code"][];
        SetofOptions: {
          from: "*";
          to: "discount_code";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      create_feature: {
        Args: {
          description?: string;
          feature: string;
          kind?: string;
          name: string;
          reason: string;
        };
        Returns: Database["billing"]["Tables"]["features"]["Row"];
        SetofOptions: {
          from: "*";
          to: "features";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      create_plan: {
        Args: {
          description?: string;
          features?: Json;
          is_listed?: boolean;
          kind?: string;
          name: string;
          plan_key: string;
          reason: string;
          store?: string;
          tier?: string;
          tier_rank?: number;
        };
        Returns: Database["billing"]["Tables"]["plans"]["Row"];
        SetofOptions: {
          from: "*";
          to: "plans";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      create_price: {
        Args: {
          billing_interval?: string;
          currency: string;
          interval_count?: number;
          is_listed?: boolean;
          package_rounding?: string;
          package_size?: number;
          plan_key: string;
          price_key: string;
          reason: string;
          stripe_meter_id?: string;
          tiers?: Json;
          tiers_mode?: string;
          trial_days?: number;
          unit_amount_decimal?: number;
          unit_amount_minor?: number;
          usage_type?: string;
        };
        Returns: Database["billing"]["Tables"]["prices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "prices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      create_store: {
        Args: { name: string; reason: string; store: string };
        Returns: Database["billing"]["Tables"]["stores"]["Row"];
        SetofOptions: {
          from: "*";
          to: "stores";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      deactivate_discount_code: {
        Args: { discount_code: string; reason: string };
        Returns: Database["billing_admin"]["CompositeTypes"]["discount_code"][];
        SetofOptions: {
          from: "*";
          to: "discount_code";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      discard_event: { Args: { event_id: string; reason: string }; Returns: undefined };
      discard_events: {
        Args: {
          at_most?: number;
          dry_run?: boolean;
          error_like?: string;
          reason: string;
          since?: string;
          status?: string;
          type?: string;
          until?: string;
        };
        Returns: Database["billing_admin"]["CompositeTypes"]["event_outcome"][];
        SetofOptions: {
          from: "*";
          to: "event_outcome";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      end_contract: {
        Args: {
          contract_id: string;
          ends_at?: string;
          reason: string;
          waives_commitment?: boolean;
        };
        Returns: Database["billing"]["Tables"]["contracts"]["Row"];
        SetofOptions: {
          from: "*";
          to: "contracts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      grant_entitlement: {
        Args: {
          account_id: string;
          feature: string;
          kind?: string;
          limit_value?: number;
          reason: string;
          valid_from?: string;
          valid_until?: string;
        };
        Returns: Database["billing"]["Tables"]["entitlement_grants"]["Row"];
        SetofOptions: {
          from: "*";
          to: "entitlement_grants";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      grant_subscription: {
        Args: {
          account_id: string;
          discount_code?: string;
          ends_at?: string;
          manual_kind?: string;
          payment_terms_days?: number;
          price_key: string;
          quantity?: number;
          reason: string;
          starts_at?: string;
        };
        Returns: Database["billing"]["CompositeTypes"]["subscription_summary"][];
        SetofOptions: {
          from: "*";
          to: "subscription_summary";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      grant_usage: {
        Args: {
          account_id: string;
          feature: string;
          priority?: number;
          quantity: number;
          reason: string;
          reference?: string;
          valid_until?: string;
        };
        Returns: Database["billing"]["Tables"]["usage_grants"]["Row"];
        SetofOptions: {
          from: "*";
          to: "usage_grants";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      link_identity: {
        Args: { issuer: string; reason: string; subject: string; user_id: string };
        Returns: Database["billing"]["Tables"]["external_identities"]["Row"];
        SetofOptions: {
          from: "*";
          to: "external_identities";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      meter_table: {
        Args: { feature: string; owner_column: unknown; table_name: unknown };
        Returns: number;
      };
      migrate_plan: {
        Args: {
          accounts?: string[];
          from_plan: string;
          price_key?: string;
          proration?: string;
          reason: string;
          to_plan: string;
          to_version?: number;
        };
        Returns: {
          asked: number | null;
          created_at: string | null;
          from_plan: string | null;
          migration_id: string | null;
          moved: number | null;
          pending: number | null;
          problems: Json | null;
          proration: string | null;
          reason: string | null;
          skipped: number | null;
          steps: number | null;
          to_plan: string | null;
          to_version: number | null;
        }[];
        SetofOptions: {
          from: "*";
          to: "plan_migrations";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      next_hook_events: {
        Args: { after?: number; at_most?: number };
        Returns: Database["billing"]["Tables"]["hook_events"]["Row"][];
        SetofOptions: {
          from: "*";
          to: "hook_events";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      note_incident: { Args: { incident_id: string; note: string }; Returns: undefined };
      preview_plan_migration: {
        Args: {
          accounts?: string[];
          from_plan: string;
          price_key?: string;
          to_plan: string;
          to_version?: number;
        };
        Returns: Database["billing_admin"]["CompositeTypes"]["migration_preview"][];
        SetofOptions: {
          from: "*";
          to: "migration_preview";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      publish_catalog: { Args: { reason: string }; Returns: number };
      publish_plan: { Args: { plan_key: string; reason: string }; Returns: number };
      publish_plan_version: {
        Args: { features: Json; plan_key: string; reason: string };
        Returns: Database["billing"]["Tables"]["plan_versions"]["Row"];
        SetofOptions: {
          from: "*";
          to: "plan_versions";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      rebuild_all: {
        Args: { after?: string; at_most?: number; reason: string; repair?: boolean };
        Returns: Database["billing_admin"]["CompositeTypes"]["rebuild_batch"];
        SetofOptions: {
          from: "*";
          to: "rebuild_batch";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      rebuild_subscription: {
        Args: { reason: string; repair?: boolean; subscription_id: string };
        Returns: Database["billing"]["CompositeTypes"]["rebuilt_object"][];
        SetofOptions: {
          from: "*";
          to: "rebuilt_object";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      record_payment: {
        Args: {
          amount_minor: number;
          invoice_id: string;
          method?: string;
          paid_at?: string;
          reason: string;
          reference: string;
        };
        Returns: Database["billing"]["Tables"]["invoices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "invoices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      recount_metered_table: { Args: { reason: string; table_name: unknown }; Returns: number };
      refund_payment: {
        Args: {
          amount_minor?: number;
          payment_id: string;
          reason: string;
          reference: string;
          refund_reason?: string;
        };
        Returns: string;
      };
      remove_administrator: { Args: { reason: string; user_id: string }; Returns: undefined };
      remove_store_admin: {
        Args: { reason: string; store: string; user_id: string };
        Returns: undefined;
      };
      reopen_account: {
        Args: { account_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["accounts"]["Row"];
        SetofOptions: {
          from: "*";
          to: "accounts";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      replay_event: { Args: { event_id: string; reason: string }; Returns: string };
      replay_events: {
        Args: {
          at_most?: number;
          dry_run?: boolean;
          error_like?: string;
          reason: string;
          since?: string;
          status?: string;
          type?: string;
          until?: string;
        };
        Returns: Database["billing_admin"]["CompositeTypes"]["event_outcome"][];
        SetofOptions: {
          from: "*";
          to: "event_outcome";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      require_mfa_for_admins: { Args: { reason: string; required: boolean }; Returns: undefined };
      resolve_alert: { Args: { alert_id: string; reason: string }; Returns: undefined };
      resolve_incident: { Args: { incident_id: string; resolution: string }; Returns: undefined };
      retry_command: { Args: { command_id: string; reason: string }; Returns: undefined };
      revoke_entitlement: {
        Args: { grant_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["entitlement_grants"]["Row"];
        SetofOptions: {
          from: "*";
          to: "entitlement_grants";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      revoke_usage_grant: {
        Args: { grant_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["usage_grants"]["Row"];
        SetofOptions: {
          from: "*";
          to: "usage_grants";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      run_task: { Args: { reason: string; task: string }; Returns: string };
      set_drift_policy: {
        Args: { class: string; reason: string; repairs: boolean };
        Returns: undefined;
      };
      set_repeated_trial: { Args: { policy: string; reason: string }; Returns: undefined };
      set_revenue_share: {
        Args: {
          effective_from?: string;
          reason: string;
          share_basis_points: number;
          store: string;
        };
        Returns: undefined;
      };
      set_stripe_livemode: { Args: { livemode: boolean; reason: string }; Returns: undefined };
      start_backfill: { Args: { reason: string }; Returns: number };
      stop_plan_migration: {
        Args: { migration_id: string; reason: string };
        Returns: {
          asked: number | null;
          created_at: string | null;
          from_plan: string | null;
          migration_id: string | null;
          moved: number | null;
          pending: number | null;
          problems: Json | null;
          proration: string | null;
          reason: string | null;
          skipped: number | null;
          steps: number | null;
          to_plan: string | null;
          to_version: number | null;
        }[];
        SetofOptions: {
          from: "*";
          to: "plan_migrations";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      store_statement: {
        Args: { month: string; store: string };
        Returns: {
          currency: string | null;
          disputes_minor: number | null;
          month: string | null;
          net_minor: number | null;
          payments_minor: number | null;
          platform_share_minor: number | null;
          refunds_minor: number | null;
          store_key: string | null;
          store_share_minor: number | null;
        }[];
        SetofOptions: {
          from: "*";
          to: "store_revenue";
          isOneToOne: false;
          isSetofReturn: true;
        };
      };
      unlink_identity: {
        Args: { issuer: string; reason: string; subject: string };
        Returns: undefined;
      };
      unmeter_table: { Args: { feature: string; table_name: unknown }; Returns: number };
      update_plan: {
        Args: {
          description?: string;
          is_active?: boolean;
          is_listed?: boolean;
          name?: string;
          past_due_grace?: string;
          plan_key: string;
          reason: string;
          renewal_grace?: string;
          tier?: string;
          tier_rank?: number;
        };
        Returns: Database["billing"]["Tables"]["plans"]["Row"];
        SetofOptions: {
          from: "*";
          to: "plans";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      update_price: {
        Args: { is_listed?: boolean; price_key: string; reason: string; trial_days?: number };
        Returns: Database["billing"]["Tables"]["prices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "prices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      update_store: {
        Args: { is_active?: boolean; name?: string; reason: string; store: string };
        Returns: Database["billing"]["Tables"]["stores"]["Row"];
        SetofOptions: {
          from: "*";
          to: "stores";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      void_invoice: {
        Args: { invoice_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["invoices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "invoices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
      write_off_invoice: {
        Args: { invoice_id: string; reason: string };
        Returns: Database["billing"]["Tables"]["invoices"]["Row"];
        SetofOptions: {
          from: "*";
          to: "invoices";
          isOneToOne: true;
          isSetofReturn: false;
        };
      };
    };
    Enums: {
      [_ in never]: never;
    };
    CompositeTypes: {
      correction_batch: {
        checked: number | null;
        corrected: number | null;
        resume_after: string | null;
      };
      discount_code: {
        id: string | null;
        code: string | null;
        percent_off: number | null;
        amount_off_minor: number | null;
        currency: string | null;
        periods: number | null;
        max_redemptions: number | null;
        max_per_account: number | null;
        first_time_only: boolean | null;
        minimum_amount_minor: number | null;
        plan_keys: string[] | null;
        price_keys: string[] | null;
        store_keys: string[] | null;
        expires_at: string | null;
        deactivated_at: string | null;
        created_at: string | null;
        reserved: number | null;
        confirmed: number | null;
        stripe_coupon_ids: string[] | null;
      };
      event_outcome: {
        event_id: string | null;
        type: string | null;
        object_id: string | null;
        received_at: string | null;
        status_before: string | null;
        status: string | null;
        error: string | null;
      };
      migration_preview: {
        from_version: number | null;
        currency: string | null;
        accounts: number | null;
        subscriptions: number | null;
        mrr_before_minor: number | null;
        mrr_after_minor: number | null;
        gained: Json | null;
        lost: Json | null;
        skipped: number | null;
        problems: Json | null;
      };
      rebuild_batch: {
        rebuilt: number | null;
        resume_after: string | null;
        found: Database["billing"]["CompositeTypes"]["rebuilt_object"][] | null;
      };
    };
  };
};

type DatabaseWithoutInternals = Omit<Database, "__InternalSupabase">;

type DefaultSchema = DatabaseWithoutInternals[Extract<keyof Database, "billing">];

export type Tables<
  DefaultSchemaTableNameOrOptions extends
    | keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
        DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
      DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])[TableName] extends {
      Row: infer R;
    }
    ? R
    : never
  : DefaultSchemaTableNameOrOptions extends keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    ? (DefaultSchema["Tables"] & DefaultSchema["Views"])[DefaultSchemaTableNameOrOptions] extends {
        Row: infer R;
      }
      ? R
      : never
    : never;

export type TablesInsert<
  DefaultSchemaTableNameOrOptions extends
    keyof DefaultSchema["Tables"] | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Insert: infer I;
    }
    ? I
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Insert: infer I;
      }
      ? I
      : never
    : never;

export type TablesUpdate<
  DefaultSchemaTableNameOrOptions extends
    keyof DefaultSchema["Tables"] | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Update: infer U;
    }
    ? U
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Update: infer U;
      }
      ? U
      : never
    : never;

export type Enums<
  DefaultSchemaEnumNameOrOptions extends
    keyof DefaultSchema["Enums"] | { schema: keyof DatabaseWithoutInternals },
  EnumName extends (DefaultSchemaEnumNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"]
    : never) = never,
> = DefaultSchemaEnumNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"][EnumName]
  : DefaultSchemaEnumNameOrOptions extends keyof DefaultSchema["Enums"]
    ? DefaultSchema["Enums"][DefaultSchemaEnumNameOrOptions]
    : never;

export type CompositeTypes<
  PublicCompositeTypeNameOrOptions extends
    keyof DefaultSchema["CompositeTypes"] | { schema: keyof DatabaseWithoutInternals },
  CompositeTypeName extends (PublicCompositeTypeNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"]
    : never) = never,
> = PublicCompositeTypeNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"][CompositeTypeName]
  : PublicCompositeTypeNameOrOptions extends keyof DefaultSchema["CompositeTypes"]
    ? DefaultSchema["CompositeTypes"][PublicCompositeTypeNameOrOptions]
    : never;

export const Constants = {
  billing: {
    Enums: {},
  },
  billing_admin: {
    Enums: {},
  },
} as const;
