-- The tables of Langfuse 4.16's Postgres that the export reads, and a role with the rights that
-- docs/moving.md asks for.
CREATE TYPE "BlobStorageIntegrationType" AS ENUM ('S3', 'S3_COMPATIBLE', 'AZURE_BLOB_STORAGE');
CREATE TYPE "BlobStorageIntegrationFileType" AS ENUM ('JSON', 'CSV', 'JSONL', 'PARQUET');
CREATE TYPE "BlobStorageExportMode" AS ENUM ('FULL_HISTORY', 'FROM_TODAY', 'FROM_CUSTOM_DATE');
CREATE TYPE "AnalyticsIntegrationExportSource" AS ENUM
    ('TRACES_OBSERVATIONS', 'TRACES_OBSERVATIONS_EVENTS', 'EVENTS');

CREATE TYPE "Role" AS ENUM ('OWNER', 'ADMIN', 'MEMBER', 'VIEWER', 'NONE');

CREATE TABLE "organizations" (
    "id" TEXT PRIMARY KEY,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "users" (
    "id" TEXT PRIMARY KEY,
    "name" TEXT,
    "email" TEXT UNIQUE,
    "email_verified" TIMESTAMP(3),
    "password" TEXT,
    "image" TEXT,
    "admin" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE "projects" (
    "id" TEXT PRIMARY KEY,
    "org_id" TEXT NOT NULL REFERENCES "organizations" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deleted_at" TIMESTAMP(3),
    "name" TEXT NOT NULL,
    "retention_days" INTEGER,
    "has_traces" BOOLEAN NOT NULL DEFAULT false,
    "metadata" JSONB,
    "home_dashboard_id" TEXT
);

CREATE TABLE "organization_memberships" (
    "id" TEXT PRIMARY KEY,
    "org_id" TEXT NOT NULL REFERENCES "organizations" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "user_id" TEXT NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "role" "Role" NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE ("org_id", "user_id")
);

CREATE TABLE "project_memberships" (
    "project_id" TEXT NOT NULL REFERENCES "projects" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "user_id" TEXT NOT NULL REFERENCES "users" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "org_membership_id" TEXT NOT NULL
        REFERENCES "organization_memberships" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "role" "Role" NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY ("project_id", "user_id")
);

CREATE TABLE "blob_storage_integrations" (
    "project_id" TEXT PRIMARY KEY REFERENCES "projects" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "type" "BlobStorageIntegrationType" NOT NULL,
    "bucket_name" TEXT NOT NULL,
    "prefix" TEXT NOT NULL,
    "access_key_id" TEXT,
    "secret_access_key" TEXT,
    "region" TEXT NOT NULL,
    "endpoint" TEXT,
    "force_path_style" BOOLEAN NOT NULL,
    "next_sync_at" TIMESTAMP(3),
    "last_sync_at" TIMESTAMP(3),
    "enabled" BOOLEAN NOT NULL,
    "export_frequency" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "file_type" "BlobStorageIntegrationFileType" NOT NULL DEFAULT 'CSV',
    "export_mode" "BlobStorageExportMode" NOT NULL DEFAULT 'FULL_HISTORY',
    "export_start_date" TIMESTAMP(3),
    "export_source" "AnalyticsIntegrationExportSource" NOT NULL DEFAULT 'TRACES_OBSERVATIONS',
    "last_error" TEXT,
    "last_error_at" TIMESTAMP(3),
    "last_failure_notification_sent_at" TIMESTAMP(3),
    "compressed" BOOLEAN NOT NULL DEFAULT true,
    "export_field_groups" TEXT[] NOT NULL DEFAULT ARRAY['core', 'basic', 'time', 'io', 'metadata', 'model',
        'usage', 'prompt', 'metrics', 'tools', 'trace_context'],
    "run_started_at" TIMESTAMP(3),
    "export_tuning" JSONB
);

CREATE TABLE "models" (
    "id" TEXT PRIMARY KEY,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "project_id" TEXT REFERENCES "projects" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "model_name" TEXT NOT NULL,
    "match_pattern" TEXT NOT NULL,
    "start_date" TIMESTAMP(3),
    "input_price" DECIMAL(65,30),
    "output_price" DECIMAL(65,30),
    "total_price" DECIMAL(65,30),
    "unit" TEXT,
    "tokenizer_id" TEXT,
    "tokenizer_config" JSONB
);

CREATE TABLE "pricing_tiers" (
    "id" TEXT PRIMARY KEY,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "model_id" TEXT NOT NULL REFERENCES "models" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "name" TEXT NOT NULL,
    "is_default" BOOLEAN NOT NULL DEFAULT false,
    "priority" INTEGER NOT NULL,
    "conditions" JSONB NOT NULL
);

CREATE TABLE "prices" (
    "id" TEXT PRIMARY KEY,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "model_id" TEXT NOT NULL REFERENCES "models" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "project_id" TEXT REFERENCES "projects" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "pricing_tier_id" TEXT NOT NULL REFERENCES "pricing_tiers" ("id") ON DELETE CASCADE ON UPDATE CASCADE,
    "usage_type" TEXT NOT NULL,
    "price" DECIMAL(65,30) NOT NULL
);

CREATE ROLE langfuse_export LOGIN PASSWORD '${PASSWORD}';
GRANT USAGE ON SCHEMA public TO langfuse_export;
GRANT SELECT (id, org_id, name, deleted_at, retention_days) ON projects TO langfuse_export;
GRANT SELECT, UPDATE (last_sync_at, next_sync_at, run_started_at, last_error, last_error_at, export_tuning,
    last_failure_notification_sent_at) ON blob_storage_integrations TO langfuse_export;
GRANT SELECT (project_id, user_id, role) ON project_memberships TO langfuse_export;
GRANT SELECT (org_id, user_id, role) ON organization_memberships TO langfuse_export;
GRANT SELECT (id, email) ON users TO langfuse_export;
GRANT SELECT ON models, pricing_tiers, prices TO langfuse_export;
